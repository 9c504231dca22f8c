package device

import (
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
)

// burst is how much of a second's capacity may be saved up.
const burst = 250 * time.Millisecond

// epoch is how long a VCM that has asked counts as one that wants capacity.
const epoch = 100 * time.Millisecond

// capacity shares the unit's rated capacity among the VCMs: each is served its
// guarantee first, whatever the others do; the rest goes to those who ask, by the
// weight of their ceilings while there are several, and up to the ceiling.
type capacity struct {
	mu   sync.Mutex
	unit bucket

	shares map[string]*share // by partition

	since time.Time // of the current epoch
	asked float64   // ceilings of those who have asked in it
	last  float64   // the same of the epoch before
}

// bucket is a token bucket. Its level may go below zero when a guarantee is
// served from it.
type bucket struct {
	rate  float64 // tokens a second; 0 is no limit
	level float64
	at    time.Time
}

func (b *bucket) refill(now time.Time) {
	room := b.rate * burst.Seconds()
	if b.at.IsZero() {
		b.level = room
	} else {
		b.level = min(b.level+b.rate*now.Sub(b.at).Seconds(), max(room, 1))
	}
	b.at = now
}

// share is one VCM's part.
type share struct {
	guaranteed, ceiling bucket
	weighted            bucket    // its part of the unit while others want theirs
	asked               time.Time // the epoch in which it asked last
}

func newCapacity() *capacity { return &capacity{shares: map[string]*share{}} }

// share returns the part of a partition, rated anew. What it has used stays used:
// a VCM that ends and comes back has not saved up anything by that.
func (c *capacity) share(uuid string, s hsmapi.Speed) *share {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shares[uuid] == nil {
		c.shares[uuid] = &share{}
	}
	p := c.shares[uuid]
	p.guaranteed.rate, p.ceiling.rate = float64(s.Guaranteed), float64(s.Ceiling)
	return p
}

// drop forgets a partition that was destroyed.
func (c *capacity) drop(uuid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.shares, uuid)
}

// rate sets the unit's capacity in tokens a second; 0 is no limit.
func (c *capacity) rate(unit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unit.rate = float64(unit)
}

// lease grants up to want tokens and says when to ask for more.
func (c *capacity) lease(s *share, want int, now time.Time) hsmapi.Leased {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ceiling.rate == 0 {
		return hsmapi.Leased{Tokens: want}
	}
	s.weighted.rate = c.unit.rate * s.ceiling.rate / c.wanted(s, now)
	for _, b := range []*bucket{&s.ceiling, &s.guaranteed, &s.weighted, &c.unit} {
		b.refill(now)
	}
	can := min(float64(want), s.ceiling.level)
	if c.unit.rate > 0 {
		// What gathers in the unit is wanted by nobody else.
		idle := c.unit.level - c.unit.rate*burst.Seconds()/2
		can = min(can, max(s.guaranteed.level, min(s.weighted.level, c.unit.level), idle))
	}
	n := int(max(can, 0))
	s.ceiling.level -= float64(n)
	s.guaranteed.level = max(s.guaranteed.level-float64(n), 0)
	s.weighted.level = max(s.weighted.level-float64(n), 0)
	c.unit.level -= float64(n)
	out := hsmapi.Leased{Tokens: n}
	if n < want {
		wait := time.Duration(float64(time.Second) / s.ceiling.rate)
		out.Retry = max(wait, 5*time.Millisecond).Milliseconds()
	}
	return out
}

// wanted is the sum of the ceilings of those who ask these days, s among them.
func (c *capacity) wanted(s *share, now time.Time) float64 {
	switch age := now.Sub(c.since); {
	case age >= 2*epoch || age < 0:
		c.since, c.asked, c.last = now, 0, 0
	case age >= epoch:
		c.since, c.asked, c.last = now, 0, c.asked
	}
	if !s.asked.Equal(c.since) {
		s.asked = c.since
		c.asked += s.ceiling.rate
	}
	return max(c.asked, c.last)
}
