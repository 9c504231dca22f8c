package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/keyfd"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// fakeUnit is the other end of a device channel.
type fakeUnit struct {
	opened hsmapi.Opened
	refuse error
	conn   *fdrpc.Conn
}

// serve returns the VCM's end of a channel to it.
func (f *fakeUnit) serve(t *testing.T) *os.File {
	t.Helper()
	here, there, err := fdrpc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	f.conn = fdrpc.New(here, func(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
		switch r.Method {
		case hsmapi.MethodOpen:
			key, _, err := keyfd.Pack(bytes.Repeat([]byte{7}, hsmapi.KeySize))
			return fdrpc.Reply{Body: f.opened, Files: []*os.File{key}}, err
		case hsmapi.MethodResume:
			return fdrpc.Reply{Body: f.opened}, f.refuse
		case hsmapi.MethodLease:
			return fdrpc.Reply{Body: hsmapi.Leased{Tokens: 5}}, nil
		}
		return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "method %s", r.Method)
	})
	done := make(chan error, 1)
	go func() { done <- f.conn.Run(context.Background()) }()
	t.Cleanup(func() { _ = f.conn.Close(); <-done })
	return there
}

var opened = hsmapi.Opened{UUID: "a", ModuleID: "1", Identity: hsmapi.Identity{ESN: "X"}, Counter: 7, Ticket: []byte("ticket")}

func openFake(t *testing.T) (*unit, *fakeUnit) {
	t.Helper()
	f := &fakeUnit{opened: opened}
	u, key, err := openUnit(t.Context(), f.serve(t))
	if err != nil {
		t.Fatal(err)
	}
	key.Destroy()
	t.Cleanup(u.close)
	return u, f
}

// lose ends the channel without a word and waits until the VCM knows.
func lose(u *unit, f *fakeUnit) {
	_ = f.conn.Close()
	<-u.now().Done()
}

func TestUnitComesBack(t *testing.T) {
	t.Parallel()
	u, f := openFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- u.gone(ctx, slog.New(slog.DiscardHandler)) }()
	lose(u, f)
	leased := make(chan error, 1)
	go func() {
		got, err := u.Lease(ctx, 5)
		if err == nil && got.Tokens != 5 {
			err = errkind.Errorf(errkind.Internal, "%d tokens", got.Tokens)
		}
		leased <- err
	}()
	if !u.away() {
		t.Error("the unit is there")
	}
	if _, err := u.resume(ctx, (&fakeUnit{opened: opened}).serve(t), 7); err != nil {
		t.Fatal(err)
	}
	if err := <-leased; err != nil {
		t.Errorf("a lease that was asked for while the unit was away: %v", err)
	}
	if u.away() {
		t.Error("the unit is still away")
	}
	cancel()
	if err := <-gone; err != nil {
		t.Errorf("gone for good: %v", err)
	}
}

func TestUnitIsGoneForGood(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	u, f := openFake(t)
	u.grace = 20 * time.Millisecond
	lose(u, f)
	if err := u.gone(t.Context(), log); !errkind.Is(err, errkind.Unavailable) || !strings.Contains(err.Error(), "away for 20ms") {
		t.Errorf("after its time: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := u.Lease(ctx, 1); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("a lease from a unit that is away: %v", err)
	}

	u, f = openFake(t)
	if err := f.conn.Tell(hsmapi.MethodDismiss); err != nil {
		t.Fatal(err)
	}
	if err := u.gone(t.Context(), log); !errkind.Is(err, errkind.Unavailable) || !strings.Contains(err.Error(), "switched off") {
		t.Errorf("after it was dismissed: %v", err)
	}
	if _, err := u.Lease(t.Context(), 1); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("a lease from a unit that was switched off: %v", err)
	}
}

func TestUnitThatIsNotTheSame(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct {
		change func(*fakeUnit)
		kind   errkind.Kind
	}{
		"another unit":      {func(f *fakeUnit) { f.opened.Identity.ESN = "Y" }, errkind.Integrity},
		"another partition": {func(f *fakeUnit) { f.opened.UUID = "b" }, errkind.Integrity},
		"made anew":         {func(f *fakeUnit) { f.opened.ModuleID = "2" }, errkind.Integrity},
		"other firmware":    {func(f *fakeUnit) { f.opened.Identity.FirmwareID = "Z" }, errkind.Mode},
		"test mode":         {func(f *fakeUnit) { f.opened.TestMode = true }, errkind.Mode},
		"used meanwhile":    {func(f *fakeUnit) { f.opened.Counter = 8 }, errkind.Integrity},
		"refused":           {func(f *fakeUnit) { f.refuse = errkind.Errorf(errkind.Refused, "no") }, errkind.Refused},
	} {
		u, f := openFake(t)
		lose(u, f)
		next := &fakeUnit{opened: opened}
		tc.change(next)
		if _, err := u.resume(t.Context(), next.serve(t), 7); !errkind.Is(err, tc.kind) {
			t.Errorf("%s: %v, want kind %v", what, err, tc.kind)
		}
		if !u.away() {
			t.Errorf("%s: the VCM goes on with it", what)
		}
	}
}
