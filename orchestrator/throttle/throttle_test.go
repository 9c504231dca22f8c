package throttle_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/orchestrator/throttle"
)

const mib = 1 << 20

// host writes at constant speeds and keeps the books of it.
type host struct {
	judge   throttle.Judge
	at      time.Time
	disk    int64
	written map[string]int64
	looked  int
}

func newHost() *host {
	return &host{at: time.Unix(1e9, 0), written: map[string]int64{"a": 7, "b": 9}}
}

// write has VCMs, and others on the host, write so many bytes a second.
func (h *host) write(lasts time.Duration, elsewhere int64, speed map[string]int64) (orders []throttle.Order) {
	for end := h.at.Add(lasts); h.at.Before(end); {
		h.at = h.at.Add(throttle.Period)
		part := func(bytes int64) int64 { return int64(float64(bytes) * throttle.Period.Seconds()) }
		h.disk += part(elsewhere)
		for uuid, bytes := range speed {
			h.written[uuid] += part(bytes)
			h.disk += part(bytes)
		}
		orders = append(orders, h.judge.Judge(h.at, h.disk, func() map[string]int64 {
			h.looked++
			return h.written
		})...)
	}
	return orders
}

func (h *host) want(t *testing.T, got []throttle.Order, want ...throttle.Order) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("at %s: %v, want %v", h.at.Sub(time.Unix(1e9, 0)), got, want)
	}
}

func TestWriterIsThrottled(t *testing.T) {
	t.Parallel()
	h := newHost()
	h.want(t, h.write(time.Minute, 0, map[string]int64{"a": 45 * mib, "b": 45 * mib}))
	if h.looked > 0 {
		t.Errorf("%d looks at VCMs that write less than one may", h.looked)
	}
	h.want(t, h.write(3*time.Second, 0, map[string]int64{"a": 200 * mib, "b": 60 * mib}), throttle.Order{UUID: "a", Throttle: true})
	// At the limit it stays throttled, and a pause that is short changes nothing.
	h.want(t, h.write(time.Minute, 0, map[string]int64{"a": throttle.Limit}))
	h.want(t, h.write(time.Second, 0, nil))
	h.want(t, h.write(time.Second, 0, map[string]int64{"a": throttle.Limit}))
	h.want(t, h.write(throttle.Patience+throttle.Pause, 0, map[string]int64{"a": mib}), throttle.Order{UUID: "a"})
	h.looked = 0
	h.want(t, h.write(time.Minute, 0, map[string]int64{"a": mib}))
	if h.looked > 30 {
		t.Errorf("%d looks at VCMs that write little", h.looked)
	}
}

// Who writes as fast as he can is found soon, and a busy disk is no reason to look at
// all VCMs all the time.
func TestLooksSoonButSeldom(t *testing.T) {
	t.Parallel()
	h := newHost()
	h.want(t, h.write(throttle.Pause, 0, map[string]int64{"a": mib}))
	h.want(t, h.write(2*throttle.Period, 0, map[string]int64{"a": 1000 * mib}), throttle.Order{UUID: "a", Throttle: true})
	h = newHost()
	h.want(t, h.write(throttle.Pause, 0, nil))
	for range 60 { // three bursts of others a second
		h.want(t, h.write(throttle.Period, 900*mib, nil))
		h.want(t, h.write(333*time.Millisecond, 0, nil))
	}
	if h.looked > 2*60 {
		t.Errorf("%d looks for 60 bursts", h.looked)
	}
	h.looked = 0
	h.want(t, h.write(time.Minute, 900*mib, nil))
	if most := 2 + int(time.Minute/throttle.Pause); h.looked > most {
		t.Errorf("%d looks in a minute, want at most %d", h.looked, most)
	}
}

// A store that is copied is a burst, and what others write is not a VCM's doing.
func TestBurstsAndOthersAreNot(t *testing.T) {
	t.Parallel()
	h := newHost()
	for range 100 {
		h.want(t, h.write(throttle.Period, 0, map[string]int64{"a": 160 * mib}))
		h.want(t, h.write(time.Second, 0, map[string]int64{"a": 60 * mib}))
	}
	h.want(t, h.write(time.Minute, 900*mib, map[string]int64{"a": 12 * mib}))
}

// A new process begins at nothing, in a new group that throttles nobody.
func TestAnotherProcess(t *testing.T) {
	t.Parallel()
	h := newHost()
	fast := map[string]int64{"a": 500 * mib}
	h.want(t, h.write(time.Second, 0, fast), throttle.Order{UUID: "a", Throttle: true})
	h.written["a"] = 0
	h.want(t, h.write(throttle.Pause, 0, nil), throttle.Order{UUID: "a"})
	h.want(t, h.write(time.Second, 0, fast), throttle.Order{UUID: "a", Throttle: true})
	delete(h.written, "a")
	h.want(t, h.write(time.Minute, 0, nil))
	h.written["a"] = 0
	h.want(t, h.write(time.Second, 0, fast), throttle.Order{UUID: "a", Throttle: true})
}
