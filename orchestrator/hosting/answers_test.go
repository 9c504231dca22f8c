package hosting_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/etcdtest"
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
		// That it runs is known before it is stored: not that write is to be lost.
		awaitIn(t, func() (lifecycle.Record, error) {
			got, _, err := out.Get(t.Context(), rec.UUID)
			return got, err
		}, lifecycle.Running)
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
	awaitIn(t, func() (lifecycle.Record, error) { return h.Show(id) }, want)
}

// awaitIn waits for the record that get reads to be in a state.
func awaitIn(t *testing.T, get func() (lifecycle.Record, error), want lifecycle.State) {
	t.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		rec, err := get()
		if err != nil {
			t.Fatal(err)
		}
		if rec.State == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it is %s, not %s", rec.State, want)
		}
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

// A start of a VCM that had been given up is carried on, too; here until it is given
// up again.
func TestStartOfAFailedOneWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Launcher, r.cfg.Policy.Attempts = failing(t), 1
	out := &outage{VCMs: r.cfg.VCMs}
	r.cfg.VCMs = out
	h := r.open(false)
	rec, err := h.Create(t.Context(), "by", r.request(request.Request{Kind: request.Create}), admit.Choices{})
	if err != nil {
		t.Fatal(err)
	}
	start := func() error { _, err := h.Start(t.Context(), "by", rec.UUID, nil, wait); return err }
	stored := func(want lifecycle.State) {
		t.Helper()
		awaitIn(t, func() (lifecycle.Record, error) {
			got, _, err := out.Get(t.Context(), rec.UUID)
			return got, err
		}, want)
	}
	if err := start(); err == nil {
		t.Fatal("it started")
	}
	stored(lifecycle.Failed)
	out.begin()
	if err := start(); !errkind.Is(err, errkind.Unavailable) {
		t.Fatalf("without an answer: %v", err)
	}
	stored(lifecycle.Starting)
	out.end()
	stored(lifecycle.Failed)
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

// A write of a creation that failed arrives when it was rolled back, and of one
// that is being rolled back: nothing is left of it, now and for the next run.
func TestCreationThatArrivesLate(t *testing.T) {
	t.Parallel()
	for name, fates := range map[string][]etcdtest.Fate{
		"the first write":  {},
		"the second write": {etcdtest.Pass},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := r.behind()
			h := r.open(false)
			p.Next("/vcms/", append(fates, slices.Repeat([]etcdtest.Fate{etcdtest.Late}, 50)...)...)
			ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
			defer cancel()
			context.AfterFunc(ctx, func() { p.Next("/vcms/") }) // the network is well again
			if _, err := h.Create(ctx, "by", r.request(request.Request{Kind: request.Create}), admit.Choices{}); !errkind.Is(err, errkind.Unavailable) {
				t.Fatalf("without an answer: %v", err)
			}
			for end := time.Now().Add(wait); hosting.Count(h) > 0; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it is not rolled back")
				}
			}
			r.nothing()
			if p.Release() == 0 {
				t.Error("nothing was late")
			}
			r.nothing()
			if _, err := h.Create(t.Context(), "by", r.request(request.Request{Kind: request.Create}), admit.Choices{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Each command meets a registry that loses what it is asked and what it says, and
// succeeds all the same, once.
func TestCommandsOverABadNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.behind()
	h := r.open(false)
	bad := func() {
		p.Next("/vcms/", etcdtest.LoseAnswer, etcdtest.Twice, etcdtest.Silence, etcdtest.LoseRequest, etcdtest.Twice, etcdtest.LoseAnswer)
	}
	bad()
	rec, err := h.Create(t.Context(), "by", r.request(request.Request{Kind: request.Create}), admit.Choices{})
	if err != nil {
		t.Fatal(err)
	}
	change := r.request(request.Request{Kind: request.SetProperties, VCM: rec.UUID, Properties: request.Properties{Name: new("else")}})
	for _, c := range []struct {
		verb string
		do   func() error
	}{
		{"property", func() error { _, err := h.SetProperty(t.Context(), "by", rec.UUID, change, "name", "else"); return err }},
		{"start", func() error { _, err := h.Start(t.Context(), "by", rec.UUID, nil, wait); return err }},
		{"stop", func() error { _, err := h.Stop(t.Context(), "by", rec.UUID, true, wait); return err }},
		{"delete", func() error { return h.Delete(t.Context(), "by", rec.UUID, true) }},
	} {
		bad()
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.verb, err)
		}
	}
	r.nothing()
	if got, want := r.kinds(), []string{"vcm.create", "vcm.property", "vcm.start", "vcm.ready", "vcm.stop", "vcm.delete"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
