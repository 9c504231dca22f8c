package accounts

import (
	"sync"
	"time"
)

// maxAddresses bounds the memory of the throttle; beyond it the address that
// has been quiet for longest is forgotten.
const maxAddresses = 8192

// throttle counts failed sign-ins an address in windows of a minute.
type throttle struct {
	mu    sync.Mutex
	since map[string]*failures
}

type failures struct {
	window time.Time
	count  int64
}

func newThrottle() *throttle { return &throttle{since: make(map[string]*failures)} }

// allows reports whether the address may try at all.
func (t *throttle) allows(address string, now time.Time, limit int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.since[address]
	return f == nil || now.Sub(f.window) >= time.Minute || f.count < limit
}

// failed notes a failure and reports whether it is the one that reached limit.
func (t *throttle) failed(address string, now time.Time, limit int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.since[address]
	if f == nil {
		if len(t.since) >= maxAddresses {
			t.forgetOldest(now)
		}
		f = &failures{window: now}
		t.since[address] = f
	}
	if now.Sub(f.window) >= time.Minute {
		f.window, f.count = now, 0
	}
	f.count++
	return f.count == limit
}

func (t *throttle) forgetOldest(now time.Time) {
	var oldest string
	var at time.Time
	for a, f := range t.since {
		if now.Sub(f.window) >= time.Minute {
			delete(t.since, a)
			continue
		}
		if oldest == "" || f.window.Before(at) {
			oldest, at = a, f.window
		}
	}
	if len(t.since) >= maxAddresses {
		delete(t.since, oldest)
	}
}
