package conductor_test

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// disk is the vault of a real VCM: the sealed store on a disk.
type disk struct{ s *store.Store }

func (d disk) View(ctx context.Context, fn func(tsm.Tx) error) error {
	return d.s.View(ctx, func(tx *store.Tx) error { return fn(tx.Bucket("tsm")) })
}

func (d disk) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	return d.s.Update(ctx, func(tx *store.Tx) error { return fn(tx.Bucket("tsm")) })
}

// counter is the device's monotonic counter.
type counter struct {
	mu    sync.Mutex
	value uint64
}

func (c *counter) Raise(_ context.Context, v uint64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value = max(c.value, v)
	return c.value, nil
}

func newDisk(t testing.TB) disk {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(context.Background(), store.Config{
		Dir: dir, Key: make([]byte, 32), Counter: &counter{}, Quota: 64 << 20, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_ = dir.Close()
	})
	return disk{s}
}
