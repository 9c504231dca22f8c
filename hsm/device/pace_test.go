package device

import (
	"testing"
	"time"
)

// Who keeps to the pace never waits; who does not is held to it, whatever he
// tries; and what he did is forgotten once he has been quiet.
func TestPace(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var p pace
	for range 10_000 {
		now = now.Add(time.Second / callsPerSecond)
		if w := p.wait(now); w != 0 {
			t.Fatalf("a call in its turn waits %s", w)
		}
	}
	for i := range 64 { // as many as a connection has in progress, more than their turn's
		if w := p.wait(now); w != 0 {
			t.Fatalf("call %d of a burst waits %s", i, w)
		}
	}
	began, calls := now, 0
	for ; calls < 5000; calls++ {
		now = now.Add(p.wait(now)) // the next one comes the moment this one is served
	}
	if rate := float64(calls) / now.Sub(began).Seconds(); rate > 1.02*callsPerSecond {
		t.Errorf("%.0f calls a second", rate)
	}
	now = now.Add(time.Second)
	if w := p.wait(now); w != 0 {
		t.Errorf("after a second of silence a call waits %s", w)
	}
}
