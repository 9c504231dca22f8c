//go:build hostile

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lasting is how long an attack shall go on that has no end of its own.
func lasting(a map[string]string) time.Duration {
	return time.Duration(number(a["ms"])) * time.Millisecond
}

// burnForks is a fork bomb that burns: as many threads as a VCM may have are busy
// without a pause, and each tries to make processes.
func burnForks(a map[string]string) (string, error) {
	threads := number(a["threads"])
	// As many threads run Go code at a time as there are processors for it.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads + 8))
	var stop atomic.Bool
	var made, tried atomic.Int64
	var all sync.WaitGroup
	for range threads {
		all.Go(func() {
			runtime.LockOSThread() // the thread ends with this
			for n := 1; !stop.Load(); n++ {
				if n%(1<<20) != 0 {
					continue
				}
				tried.Add(1)
				if fork(0) == nil {
					made.Add(1)
				}
			}
		})
	}
	time.Sleep(lasting(a))
	stop.Store(true)
	all.Wait()
	return fmt.Sprintf("%d threads; %d of %d processes were made", threads, made.Load(), tried.Load()), nil
}

// scratch writes all the time where its files have room: beyond what any store
// has, as far as their limit, and again.
func scratch(a map[string]string) (string, error) {
	const from, piece, together = 24 << 20, 256 << 10, 8
	fd, _, done, err := storeFile("store.new")
	if err != nil {
		return "", err
	}
	defer done()
	var written int64
	p := make([]byte, piece)
	at := int64(from)
	for n, end := 1, time.Now().Add(lasting(a)); time.Now().Before(end); n++ {
		m, err := unix.Pwrite(fd, p, at)
		written += int64(m)
		at += int64(m)
		switch {
		case errors.Is(err, unix.EFBIG):
			at, err = from, unix.Ftruncate(fd, from)
		case err == nil && n%together == 0:
			err = unix.Fdatasync(fd)
		}
		if err != nil {
			return fmt.Sprintf("%d MiB", written>>20), err
		}
	}
	return fmt.Sprintf("%d MiB", written>>20), nil
}

// lease asks the unit for capacity without a pause, from many threads.
func (m *module) lease(ctx context.Context, a map[string]string) (string, error) {
	want := number(a["tokens"])
	ctx, cancel := context.WithTimeout(ctx, lasting(a))
	defer cancel()
	var calls, tokens atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range 64 {
		all.Go(func() {
			for ctx.Err() == nil {
				got, err := m.unit.Lease(ctx, want)
				if err == nil {
					calls.Add(1)
					tokens.Add(int64(got.Tokens))
				}
			}
		})
	}
	all.Wait()
	s := time.Since(began).Seconds()
	return fmt.Sprintf("%.0f calls and %.0f tokens a second", float64(calls.Load())/s, float64(tokens.Load())/s), nil
}
