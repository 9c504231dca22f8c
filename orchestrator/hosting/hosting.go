// Package hosting carries out what the provider asks for: it joins admission,
// the life cycle, the registry, the network, the unit and the launcher, and
// brings every VCM back to where it was after a crash.
package hosting
