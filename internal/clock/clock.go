// Package clock is where business time comes from.
//
// Validity windows, token identifiers and expiry dates depend on the module's
// clock, which a test must be able to set. Durations of I/O use package time.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time.
type Clock interface {
	Now() time.Time
}

// System is the host's clock.
func System() Clock { return system{} }

type system struct{}

func (system) Now() time.Time { return time.Now() }

// Offset is base shifted by a correction that may change while it runs: a
// module's real-time clock seen from its host.
type Offset struct {
	base Clock
	mu   sync.RWMutex
	by   time.Duration
}

// NewOffset returns base shifted by d.
func NewOffset(base Clock, d time.Duration) *Offset { return &Offset{base: base, by: d} }

// Now returns base's time plus the correction.
func (o *Offset) Now() time.Time {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.base.Now().Add(o.by)
}

// Set replaces the correction.
func (o *Offset) Set(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.by = d
}

// Fake is a clock that moves only when told to.
type Fake struct {
	mu  sync.Mutex
	now time.Time
}

// NewFake returns a clock that stands at t.
func NewFake(t time.Time) *Fake { return &Fake{now: t} }

// Now returns where the clock stands.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// Advance moves the clock by d.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// Set moves the clock to t.
func (f *Fake) Set(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = t
}
