package store

import (
	"sync"
	"sync/atomic"
)

// turn is a lock that nobody waits for who only wants a call to be run: who finds it
// held leaves the call to its holder, who runs it before somebody else has the lock.
//
// Who waits for a lock stays away for longer than a call takes, and is in the way of
// the others when it comes back; where the system stops the holder's thread, a queue
// forms that is handed the lock one by one.
type turn struct {
	mu      sync.Mutex
	arrived atomic.Pointer[call] // the last one to come
	run     func(*call)          // runs a call; the lock is held
}

func (t *turn) Lock() { t.mu.Lock() }

func (t *turn) Unlock() {
	t.mu.Unlock()
	t.help()
}

// leave has c run, by this goroutine or another one.
func (t *turn) leave(c *call) {
	for {
		c.before = t.arrived.Load()
		if t.arrived.CompareAndSwap(c.before, c) {
			break
		}
	}
	t.help()
}

// help runs what has arrived. If somebody else has the lock it is theirs to do: who
// has unlocked looks here again.
func (t *turn) help() {
	for t.arrived.Load() != nil && t.mu.TryLock() {
		t.runArrived()
		t.mu.Unlock()
	}
}

// runArrived runs what has arrived, in its order.
func (t *turn) runArrived() {
	var first *call
	for c := t.arrived.Swap(nil); c != nil; {
		first, c, c.before = c, c.before, first
	}
	for c := first; c != nil; {
		next := c.before
		c.before = nil
		t.run(c) // and do not look at c again
		c = next
	}
}
