package device

import (
	"sync"
	"time"
)

// What a VCM may ask of the unit. One at the highest ceiling makes some hundred
// calls a second. All VCMs share the unit's process: one that asks without a pause
// would be answered at the cost of the others.
const (
	callsPerSecond = 1000
	callsAtOnce    = 100
)

// pace spreads the calls of one device channel over time. Those that come too
// early wait; the connection bounds how many can, and reads no more.
type pace struct {
	mu   sync.Mutex
	free time.Time // when the next call's turn is
}

// wait returns how long a call that came at now waits for its turn.
func (p *pace) wait(now time.Time) time.Duration {
	const each = time.Second / callsPerSecond
	p.mu.Lock()
	defer p.mu.Unlock()
	if saved := now.Add(-callsAtOnce * each); p.free.Before(saved) {
		p.free = saved
	}
	p.free = p.free.Add(each)
	return max(0, p.free.Sub(now))
}
