// Package network decides on which address a VCM is reached and binds its
// listeners there. No code of a tenant ever binds a port: the orchestrator does
// and hands the listening sockets over.
package network
