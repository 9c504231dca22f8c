package main

import (
	"runtime"
	"runtime/debug"
)

const (
	// gcPercent trades a little processor time for a small heap: a thousand of
	// these processes share one host.
	gcPercent = 50
	// unlimitedSoft is the soft limit where the host sets none. It is not a
	// bound, only where the collector begins to work harder.
	unlimitedSoft = 96 << 20
)

// tuneMemory keeps the collector below the process's limit, with room for what
// it does not count: the binary, the mapped store, kernel memory.
func tuneMemory(limit int64) {
	debug.SetGCPercent(gcPercent)
	soft := int64(unlimitedSoft)
	if limit > 0 {
		soft = limit - limit/4
	}
	debug.SetMemoryLimit(soft)
}

func goroutines() int64 { return int64(runtime.NumGoroutine()) }
