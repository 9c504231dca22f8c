package speed_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/vcm/speed"
)

// lessor is a unit in memory.
type lessor struct {
	calls  atomic.Int64
	answer func(tokens int) (hsmapi.Leased, error)
}

func (l *lessor) Lease(_ context.Context, tokens int) (hsmapi.Leased, error) {
	l.calls.Add(1)
	return l.answer(tokens)
}

func TestAnUnlimitedVCMHardlyAsks(t *testing.T) {
	t.Parallel()
	unit := &lessor{answer: func(n int) (hsmapi.Leased, error) { return hsmapi.Leased{Tokens: n}, nil }}
	l := speed.New(unit, 200, 0)
	const tokens = 10_000
	for range tokens {
		if err := l.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := unit.calls.Load(); n > tokens/20 {
		t.Errorf("%d leases for %d tokens", n, tokens)
	}
}

func TestNoTokenIsTakenTwice(t *testing.T) {
	t.Parallel()
	var given atomic.Int64
	unit := &lessor{answer: func(n int) (hsmapi.Leased, error) {
		n = min(n, 3)
		if given.Add(int64(n)) > 1000 {
			given.Add(-int64(n))
			return hsmapi.Leased{Retry: 5}, nil
		}
		return hsmapi.Leased{Tokens: n}, nil
	}}
	l := speed.New(unit, 200, 200*time.Millisecond)
	var taken atomic.Int64
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for l.Take(t.Context()) == nil {
				taken.Add(1)
			}
		})
	}
	callers.Wait()
	if taken.Load() != given.Load() {
		t.Errorf("%d taken of %d given", taken.Load(), given.Load())
	}
}

func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	empty := &lessor{answer: func(int) (hsmapi.Leased, error) { return hsmapi.Leased{Retry: 5}, nil }}
	l := speed.New(empty, 200, 50*time.Millisecond)
	var callers sync.WaitGroup
	began := time.Now()
	for range 8 { // those who queue behind another, too
		callers.Go(func() {
			if err := l.Take(t.Context()); !errkind.Is(err, errkind.Limit) || !strings.Contains(err.Error(), "50ms") {
				t.Errorf("%v", err)
			}
		})
	}
	callers.Wait()
	if d := time.Since(began); d < 50*time.Millisecond || d > 2*time.Second {
		t.Errorf("after %s", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Take(ctx); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("cancelled: %v", err)
	}
	gone := &lessor{answer: func(int) (hsmapi.Leased, error) { return hsmapi.Leased{}, errors.New("gone") }}
	if err := speed.New(gone, 200, 0).Take(t.Context()); err == nil {
		t.Error("without a unit")
	}
}

// stopped is a unit that takes calls and does not answer until it goes on.
type stopped struct{ goOn chan struct{} }

func (s stopped) Lease(ctx context.Context, tokens int) (hsmapi.Leased, error) {
	select {
	case <-s.goOn:
		return hsmapi.Leased{Tokens: tokens}, nil
	case <-ctx.Done():
		return hsmapi.Leased{}, errkind.Errorf(errkind.Unavailable, "lease: %w", ctx.Err())
	}
}

func TestASilentUnitIsNoUsedUpRating(t *testing.T) {
	t.Parallel()
	unit := stopped{make(chan struct{})}
	l := speed.New(unit, 200, 100*time.Millisecond)
	var callers sync.WaitGroup
	for range 8 { // those who queue behind another, too
		callers.Go(func() {
			if err := l.Take(t.Context()); !errkind.Is(err, errkind.Unavailable) {
				t.Errorf("%v", err)
			}
		})
	}
	callers.Wait()
	close(unit.goOn)
	if err := l.Take(t.Context()); err != nil {
		t.Errorf("the unit is back: %v", err)
	}
}

// unit is a real unit on a socket.
func unit(t *testing.T) *hsmapi.Client {
	t.Helper()
	dir := t.TempDir()
	cfg := device.Config{Dir: filepath.Join(dir, "unit"), Clock: clock.System(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if _, err := device.Initialise(cfg, "0000-1111-2222"); err != nil {
		t.Fatal(err)
	}
	u, err := device.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := fdrpc.Listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Serve(ctx, l) }()
	c, err := hsmapi.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		cancel()
		if err := errors.Join(<-done, u.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// open gives a VCM of this speed its device channel.
func open(t *testing.T, u *hsmapi.Client, s hsmapi.Speed) *hsmapi.Channel {
	t.Helper()
	id := uuid.NewString()
	if _, err := u.Create(t.Context(), hsmapi.CreatePartition{UUID: id}); err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	there := os.NewFile(uintptr(fds[0]), "unit")
	err = u.Attach(t.Context(), hsmapi.Attach{UUID: id, Speed: s}, there)
	_ = there.Close()
	if err != nil {
		t.Fatal(err)
	}
	c, err := hsmapi.NewChannel(os.NewFile(uintptr(fds[1]), "vcm"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, key, err := c.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key.Destroy()
	return c
}

// Three VCMs of different ratings want all there is: each gets what it is
// guaranteed, none more than its ceiling, and all together what the unit has.
func TestSharesUnderSaturation(t *testing.T) {
	t.Parallel()
	u := unit(t)
	const whole = 800
	speeds := []hsmapi.Speed{
		{Guaranteed: 300, Ceiling: 800, Unit: whole}, {Guaranteed: 150, Ceiling: 400, Unit: whole}, {Guaranteed: 75, Ceiling: 200, Unit: whole},
	}
	const duration = 3 * time.Second
	counts := make([]atomic.Int64, len(speeds))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tills sync.WaitGroup
	began := time.Now()
	for i, s := range speeds {
		l := speed.New(open(t, u, s), s.Ceiling, 0)
		for range 8 {
			tills.Go(func() {
				for l.Take(ctx) == nil {
					counts[i].Add(1)
				}
			})
		}
	}
	time.Sleep(duration)
	cancel()
	tills.Wait()
	elapsed := time.Since(began).Seconds()
	total := 0.0
	for i, s := range speeds {
		rate := float64(counts[i].Load()) / elapsed
		total += rate
		t.Logf("guaranteed %d, ceiling %d: %.0f tokens a second", s.Guaranteed, s.Ceiling, rate)
		// The machine is shared with other tests: some less is not unfair.
		fair := whole * float64(s.Ceiling) / (800 + 400 + 200)
		if low, high := max(0.9*float64(s.Guaranteed), 0.75*fair), 1.25*fair; rate < low || rate > high {
			t.Errorf("VCM %d: %.0f tokens a second, want %.0f to %.0f", i, rate, low, high)
		}
	}
	if total > 1.15*whole {
		t.Errorf("%.0f tokens a second in all, the unit is rated for %d", total, whole)
	}
}

func BenchmarkTake(b *testing.B) {
	l := speed.New(&lessor{answer: func(n int) (hsmapi.Leased, error) { return hsmapi.Leased{Tokens: n}, nil }}, 0, 0)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if l.Take(b.Context()) != nil {
				b.Fatal("refused")
			}
		}
	})
}
