// Package platform serves the provider's SSH services: setup, updater, monitor,
// sshadmin, orchestrator and launcher, each with its own listener, host key and
// one authorised client key.
package platform
