package hosting_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// outage is a registry that does one more write, of which nobody hears, and is
// read-only from then on until it is over.
type outage struct {
	registry.VCMs
	mu      sync.Mutex
	pending bool // the write that nobody hears of is still to come
	on      bool
}

func (o *outage) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending, o.on = true, true
}

func (o *outage) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.on = false
}

// write says what becomes of a write: it happens, and its answer arrives.
func (o *outage) write() (happens, answered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.on {
		return true, true
	}
	happens, o.pending = o.pending, false
	return happens, false
}

func (o *outage) Swap(ctx context.Context, id string, rev registry.Rev, next lifecycle.Record) (registry.Rev, error) {
	happens, answered := o.write()
	if happens {
		if rev, err := o.VCMs.Swap(ctx, id, rev, next); answered {
			return rev, err
		}
	}
	return 0, errkind.Errorf(errkind.Unavailable, "answer: %w", errLost)
}

// unanswered makes a VCM, runs it if that is asked for, and lets do, whose write is
// stored without an answer, meet the outage. It returns when the host shows what
// was stored.
func unanswered(t *testing.T, running bool, do func(*hosting.Host, string) error, shows lifecycle.State) (*rig, *outage, string) {
	t.Helper()
	r := newRig(t)
	out := &outage{VCMs: r.cfg.VCMs}
	r.cfg.VCMs = out
	h := r.open(false)
	rec, err := h.Create(t.Context(), "by", r.request(request.Request{Kind: request.Create}), admit.Choices{})
	if err != nil {
		t.Fatal(err)
	}
	if running {
		if _, err := h.Start(t.Context(), "by", rec.UUID, nil, wait); err != nil {
			t.Fatal(err)
		}
	}
	out.begin()
	if err := do(h, rec.UUID); !errkind.Is(err, errkind.Unavailable) {
		t.Fatalf("without an answer: %v", err)
	}
	await(t, h, rec.UUID, shows)
	return r, out, rec.UUID
}

func await(t *testing.T, h *hosting.Host, id string, want lifecycle.State) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		rec, err := h.Show(id)
		if err != nil {
			t.Fatal(err)
		}
		if rec.State == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is %s, not %s", rec.State, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A start that was stored, and whose answer was lost, is one: it is seen, others
// join it, and nobody but a stop ends it.
func TestStartWithoutAnAnswerGoesOn(t *testing.T) {
	t.Parallel()
	start := func(h *hosting.Host, id string) error {
		_, err := h.Start(context.Background(), "by", id, nil, wait)
		return err
	}
	r, out, id := unanswered(t, false, start, lifecycle.Starting)
	joined := make(chan error, 2)
	for range cap(joined) {
		go func() { joined <- start(r.host, id) }()
	}
	time.Sleep(100 * time.Millisecond) // they have read the record
	out.end()
	for range cap(joined) {
		if err := <-joined; err != nil {
			t.Errorf("a start that joined: %v", err)
		}
	}
	await(t, r.host, id, lifecycle.Running)
	if _, err := r.host.Stop(t.Context(), "by", id, true, wait); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// The same, with nobody who joins.
func TestStartWithoutAnAnswerIsNotUndone(t *testing.T) {
	t.Parallel()
	r, out, id := unanswered(t, false, func(h *hosting.Host, id string) error {
		_, err := h.Start(context.Background(), "by", id, nil, wait)
		return err
	}, lifecycle.Starting)
	out.end()
	await(t, r.host, id, lifecycle.Running)
}

// A stop that joins one whose answer was lost stops.
func TestStopWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	stop := func(h *hosting.Host, id string) error {
		_, err := h.Stop(context.Background(), "by", id, true, wait)
		return err
	}
	r, out, id := unanswered(t, true, stop, lifecycle.Stopping)
	if err := stop(r.host, id); err != nil {
		t.Fatal(err)
	}
	out.end()
	await(t, r.host, id, lifecycle.Stopped)
	time.Sleep(1500 * time.Millisecond) // what is left over is settled each second
	if rec, err := r.host.Show(id); err != nil || rec.State != lifecycle.Stopped {
		t.Errorf("it was told to be stopped and is %s (%v)", rec.State, err)
	}
}
