package conductor_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
)

// heldVault holds every change of the module until it is told to go on.
type heldVault struct {
	tsm.Vault
	entered chan struct{}
	proceed chan struct{}
	armed   atomic.Bool
}

func (v *heldVault) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	if v.armed.Load() {
		v.entered <- struct{}{}
		<-v.proceed
	}
	return v.Vault.Update(ctx, fn)
}

// start serves a server of the test's own, with r's module.
func (r *rig) start(cfg conductor.Config) *conductor.Server {
	r.t.Helper()
	r.stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.Module, cfg.Clock = r.module, r.clock
	s := conductor.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	r.address = l.Addr().String()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("serve: %v", err)
		}
	})
	return s
}

// A restart ends idle peers at once, lets the command under way be answered,
// and leaves the module as it was.
func TestRestartBetweenCommands(t *testing.T) {
	t.Parallel()
	v := &heldVault{Vault: newMemory(), entered: make(chan struct{}), proceed: make(chan struct{})}
	r := newRig(t, option{vault: v})
	var log []string
	s := r.start(conductor.Config{AuditRestart: func(_ context.Context, by string) error { log = append(log, by); return nil }})
	busy, idle := newClient(t, r.address), r.dial()
	busy.loadKeys(r, group(123456))
	idle.exchange(frameOf("GL?EC00001x"))
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	streamed := make(chan error, 1)
	go func() { streamed <- s.Stream(context.Background(), "ssh", theirs) }()
	await(t, func() bool { return s.Status().Sessions == 1 })

	v.armed.Store(true)
	token := make(chan []string, 1)
	go func() {
		token <- busy.must(2, "VC", "N1", "P"+pan, "N1", "N11", "N2", "N0", "H0001", "H"+tidOf(noon))
	}()
	<-v.entered
	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := s.Restart(short, "somebody"); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("a restart that has to wait: %v", err)
	}
	idle.closed()
	if err := <-streamed; err != nil {
		t.Errorf("the session ended with %v", err)
	}
	again := newClient(t, r.address)
	again.must(2, "DI")
	ended := make(chan int, 1)
	go func() {
		n, err := s.Restart(context.Background(), "somebody else")
		if err != nil {
			t.Errorf("%v", err)
		}
		ended <- n
	}()
	again.closed()
	v.armed.Store(false)
	close(v.proceed)
	if got := <-token; len(got) != 2 {
		t.Errorf("the command under way got %v", got)
	}
	if n := <-ended; n != 2 {
		t.Errorf("%d peers were ended", n)
	}
	busy.closed()
	st := s.Status()
	if st.Restarts != 2 || st.Sockets != 0 || st.Sessions != 0 || st.Accepted != 4 || !st.Started.Equal(noon) || st.MaxSockets != 64 {
		t.Errorf("status %+v", st)
	}
	newClient(t, r.address).must(1, "GA", "N1")
	if want := []string{"somebody", "somebody else"}; !slices.Equal(log, want) {
		t.Errorf("the audit log names %v", log)
	}
}

// A restart that nobody can be told of afterwards does not happen.
func TestRestartNeedsTheAuditLog(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	full := errkind.Errorf(errkind.Limit, "the disk is full")
	s := r.start(conductor.Config{AuditRestart: func(context.Context, string) error { return full }})
	c := newClient(t, r.address)
	c.must(2, "DI")
	if _, err := s.Restart(context.Background(), "somebody"); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	c.must(2, "DI")
	if st := s.Status(); st.Restarts != 0 || st.Sockets != 1 {
		t.Errorf("%+v", st)
	}
}

func await(t *testing.T, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to be")
		}
	}
}

// Settings are looked at when they are needed, not when the server starts.
func TestLiveSettings(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	var now atomic.Pointer[conductor.Settings]
	now.Store(&conductor.Settings{MaxSockets: 1})
	r := newRig(t, option{})
	s := r.start(conductor.Config{Live: func() conductor.Settings { return *now.Load() }, Log: slog.New(slog.NewTextHandler(&log, nil))})
	first := newClient(t, r.address)
	first.must(2, "DI")
	r.dial().closed()
	now.Store(&conductor.Settings{MaxSockets: 2, Trace: conductor.TraceVerbose})
	second := newClient(t, r.address)
	second.must(2, "QD")
	now.Store(&conductor.Settings{MaxSockets: 1})
	second.must(4, "QI") // who is there stays
	if text := log.text(); !strings.Contains(text, "command=SM?QD") || strings.Contains(text, "command=SM?DI") || strings.Contains(text, "command=SM?QI") {
		t.Errorf("the trace says\n%s", text)
	}
	if st := s.Status(); st.Sockets != 2 || st.MaxSockets != 1 || st.Refused != 1 || st.Commands != 3 {
		t.Errorf("status %+v", st)
	}
}
