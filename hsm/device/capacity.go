package device

import (
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
)

// burst is how much of a second's capacity may be saved up.
const burst = 250 * time.Millisecond

// capacity shares the unit's rated capacity among the VCMs: each is served its
// guarantee first, whatever the others do; what is left of the unit's capacity
// goes to whoever asks, up to his ceiling.
type capacity struct {
	mu   sync.Mutex
	unit bucket
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
}

func newCapacity() *capacity { return &capacity{} }

func newShare(s hsmapi.Speed) *share {
	return &share{guaranteed: bucket{rate: float64(s.Guaranteed)}, ceiling: bucket{rate: float64(s.Ceiling)}}
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
	for _, b := range []*bucket{&s.ceiling, &s.guaranteed, &c.unit} {
		b.refill(now)
	}
	can := min(float64(want), s.ceiling.level)
	if c.unit.rate > 0 {
		can = min(can, max(s.guaranteed.level, 0)+max(c.unit.level-max(s.guaranteed.level, 0), 0))
	}
	n := int(max(can, 0))
	s.ceiling.level -= float64(n)
	s.guaranteed.level = max(s.guaranteed.level-float64(n), 0)
	c.unit.level -= float64(n)
	out := hsmapi.Leased{Tokens: n}
	if n < want {
		wait := time.Duration(float64(time.Second) / s.ceiling.rate)
		out.Retry = max(wait, 5*time.Millisecond).Milliseconds()
	}
	return out
}
