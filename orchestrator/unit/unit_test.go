package unit_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// hsmd serves the unit in dir, made on first use, until the returned stop.
func hsmd(t *testing.T, dir, socket string) (esn string, stop func()) {
	t.Helper()
	cfg := device.Config{Dir: dir, Clock: clock.System(), Log: quiet()}
	if _, err := os.Stat(filepath.Join(dir, "identity.json")); err != nil {
		if _, err := device.Initialise(cfg, ""); err != nil {
			t.Fatal(err)
		}
	}
	u, err := device.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := fdrpc.Listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = u.Serve(ctx, l) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
			u.Close()
		}
	}
	t.Cleanup(stop)
	return u.Identity().ESN, stop
}

func readTime(ctx context.Context, u *unit.Unit) error {
	return u.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error { _, err := c.Time(ctx); return err })
}

func TestComesBack(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "unit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	if _, _, err := unit.Connect(t.Context(), socket, quiet()); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("no unit: %v", err)
	}
	esn, stop := hsmd(t, filepath.Join(dir, "a"), socket)
	u, id, err := unit.Connect(t.Context(), socket, quiet())
	if err != nil || id.ESN != esn {
		t.Fatalf("%+v %v", id, err)
	}
	defer u.Close()
	epoch, ok := u.Epoch()
	if err := readTime(t.Context(), u); err != nil || !ok {
		t.Errorf("%v %v", ok, err)
	}
	if now, err := u.Wait(t.Context(), 0); err != nil || now != epoch {
		t.Errorf("a unit that is here: %d %v, want %d", now, err, epoch)
	}

	stop()
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := u.Wait(short, epoch); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("a unit that is away: %v", err)
	}
	if err := readTime(t.Context(), u); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("a call while it is away: %v", err)
	}

	// Another unit on the same socket is not ours.
	_, stop = hsmd(t, filepath.Join(dir, "b"), socket)
	short, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := u.Wait(short, epoch); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("another unit: %v", err)
	}
	stop()

	_, stop = hsmd(t, filepath.Join(dir, "a"), socket)
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	now, err := u.Wait(ctx, epoch)
	if err != nil || now <= epoch {
		t.Fatalf("%d %v", now, err)
	}
	if err := readTime(t.Context(), u); err != nil {
		t.Error(err)
	}
}
