package main

import (
	"runtime"
	"runtime/debug"
)

const (
	// gcPercent keeps the heap small: a thousand of these processes share one
	// host. Vending allocates so little that 400 is not measurably faster.
	gcPercent = 50
	// unlimitedSoft is the soft limit where the host sets none. It is not a
	// bound, only where the collector begins to work harder.
	unlimitedSoft = 96 << 20
)

// tuneMemory keeps the collector below the process's limit, with room for what
// it does not count: the binary, kernel memory.
func tuneMemory(limit int64) {
	debug.SetGCPercent(gcPercent)
	soft := int64(unlimitedSoft)
	if limit > 0 {
		soft = limit - limit/4
	}
	debug.SetMemoryLimit(soft)
}

func goroutines() int64 { return int64(runtime.NumGoroutine()) }
