package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// gcPercent keeps the heap small: a thousand of these processes share one
	// host. Vending allocates so little that 400 is not measurably faster.
	gcPercent = 50
	// unlimitedSoft is the soft limit where the host sets none. It is not a
	// bound, only where the collector begins to work harder.
	unlimitedSoft = 96 << 20
)

// startPercent lets a VCM start without a collection: one costs more than the
// start's garbage is worth, in time and, for the collector's own tables, in memory.
const startPercent = 100

// settling is how long after its start a VCM gives back what only the start
// needed. Until then the host may be busy starting others.
const settling = time.Minute

// collectLate is the end of the start, as far as memory is concerned.
func collectLate(ctx context.Context) error {
	select {
	case <-time.After(settling):
		debug.SetGCPercent(gcPercent)
		debug.FreeOSMemory()
	case <-ctx.Done():
	}
	return nil
}

// tuneMemory keeps the collector below the process's limit, with room for what
// it does not count: the binary, kernel memory.
func tuneMemory(limit int64) {
	debug.SetGCPercent(startPercent)
	soft := int64(unlimitedSoft)
	if limit > 0 {
		soft = limit - limit/4
	}
	debug.SetMemoryLimit(soft)
}

func goroutines() int64 { return int64(runtime.NumGoroutine()) }
