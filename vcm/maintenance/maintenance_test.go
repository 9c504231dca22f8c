package maintenance_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/maintenance"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

type counter struct {
	mu sync.Mutex
	v  uint64
}

func (c *counter) Raise(_ context.Context, v uint64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.v = max(c.v, v)
	return c.v, nil
}

// TestMode: many sessions change the mode at once; memory and disk agree, and
// a change that cannot be audited is none.
func TestMode(t *testing.T) {
	t.Parallel()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() }) // after the store
	key := make([]byte, 32)
	rand.Read(key)
	s, err := store.Open(t.Context(), store.Config{Dir: dir, Key: key, Counter: new(counter), Quota: 1 << 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var auditErr error
	cfg := maintenance.Config{Store: s, Clock: clock.NewFake(time.Unix(1_800_000_000, 0)), Audit: func(*store.Tx, auditlog.Entry) error { return auditErr }}
	m, err := maintenance.Open(t.Context(), cfg)
	if err != nil || m.State() != (maintenance.State{}) {
		t.Fatalf("%+v, %v", m.State(), err)
	}
	var sessions sync.WaitGroup
	for i := range 16 {
		sessions.Go(func() {
			on := i%2 == 0
			if st, err := m.Set(t.Context(), "one of them", on); err != nil || st.On != on {
				t.Errorf("set %v: %+v, %v", on, st, err)
			}
		})
	}
	sessions.Wait()
	if again, err := maintenance.Open(t.Context(), cfg); err != nil || again.State() != m.State() {
		t.Errorf("on disk %+v, in memory %+v, %v", again.State(), m.State(), err)
	}

	if _, err := m.Set(t.Context(), "tenant", true); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	gate := maintenance.Gate{Mode: m, Refusal: func() error { return no }}
	if err := gate.Take(t.Context()); !errors.Is(err, no) {
		t.Errorf("the gate in maintenance mode: %v", err)
	}
	auditErr = errors.New("the log is full")
	if _, err := m.Set(t.Context(), "tenant", false); !errors.Is(err, auditErr) || !m.State().On {
		t.Errorf("a change without audit: %v, %+v", err, m.State())
	}
	auditErr = nil
	if _, err := m.Set(t.Context(), "tenant", false); err != nil {
		t.Fatal(err)
	}
	if err := gate.Take(t.Context()); err != nil {
		t.Errorf("the gate afterwards: %v", err)
	}
}
