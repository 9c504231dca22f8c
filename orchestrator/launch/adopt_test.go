package launch_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// orphan starts a process that serves and lets its launcher die.
func orphan(t *testing.T, cfg launch.Config, name string) (pid int, want []network.Socket) {
	t.Helper()
	l, s := launcher(t, cfg), spec(t, name)
	p, err := l.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if name != "mute" {
		isReady(t, p)
	}
	launch.Die(l, p)
	select {
	case <-p.Done():
	default:
		t.Error("somebody still waits for it")
	}
	return p.PID(), s.Sockets
}

// take takes the one process over that is kept.
func take(t *testing.T, l *launch.Launcher) *launch.Process {
	t.Helper()
	kept := l.Kept()
	if len(kept) != 1 || kept[0].Ended {
		t.Fatalf("kept: %+v", kept)
	}
	p, err := l.Take(t.Context(), kept[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestProcessServesOnForTheNextLauncher(t *testing.T) {
	t.Parallel()
	// Longer than a socket's name may be.
	cfg := launch.Config{Dir: filepath.Join(t.TempDir(), strings.Repeat("long", 30)), Fence: 7}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	pid, want := orphan(t, cfg, "busy")
	for range 3 {
		cfg.Fence++
		l := launcher(t, cfg)
		p := take(t, l)
		have, _, err := p.Greet(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		if have[0].Service != want[0].Service || have[0].Address != want[0].Address || have[0].File == want[0].File {
			t.Errorf("its sockets are %+v", have)
		}
		network.CloseAll(have)
		if r := isReady(t, p); r.ModuleID != "00000001" {
			t.Errorf("%+v", r)
		}
		if st, err := p.Stats(t.Context()); err != nil || st.Requests != 7 {
			t.Errorf("%+v, %v", st, err)
		}
		if p.PID() != pid || time.Since(p.Since()) > time.Minute {
			t.Errorf("pid %d since %s, was %d", p.PID(), p.Since(), pid)
		}
		if _, err := l.Take(t.Context(), launch.Kept{ID: 1}); !errkind.Is(err, errkind.NotFound) {
			t.Errorf("taken twice: %v", err)
		}
		launch.Die(l, p)
	}
	cfg.Fence++
	l := launcher(t, cfg)
	p := take(t, l)
	if err := p.Stop(t.Context(), vcmcontrol.Stop{Force: true, Drain: 100}); err != nil || p.Ending() != "exit code 0" {
		t.Errorf("%v, %s", err, p.Ending())
	}
	second := start(t, l, spec(t, "another"))
	isReady(t, second)
}

func TestOneLauncherAtATime(t *testing.T) {
	t.Parallel()
	cfg := launch.Config{Dir: t.TempDir(), Fence: 7, Path: "/proc/self/exe", Forker: "/proc/self/exe", Floor: launch.Plain, Cgroups: launch.NoCgroups(), Log: quiet()}
	l := launcher(t, cfg)
	p := start(t, l, spec(t, "first"))
	isReady(t, p)
	st, err := os.Stat(filepath.Join(cfg.Dir, launch.SocketName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("its socket: %v %v", st.Mode(), err)
	}
	next := cfg
	next.Fence++
	if _, err := launch.New(next); !errkind.Is(err, errkind.Unavailable) || !strings.Contains(err.Error(), "another orchestrator is here") {
		t.Errorf("a second one: %v", err)
	}
	launch.Die(l, p)
	l = launcher(t, next)
	q := take(t, l)
	launch.Die(l, q)
	if _, err := launch.New(cfg); !errkind.Is(err, errkind.Refused) || !strings.Contains(err.Error(), "a later orchestrator") {
		t.Errorf("an older one: %v", err)
	}
	next.Fence++
	take(t, launcher(t, next)).Kill()
}

// Nothing but the greeting is answered before it, and no other version of it.
func TestForkerObeysNobodyElse(t *testing.T) {
	t.Parallel()
	cfg := launch.Config{Dir: t.TempDir(), Fence: 3}
	orphan(t, cfg, "first")
	dial := func() *fdrpc.Conn {
		t.Helper()
		var c *fdrpc.Conn
		err := launch.Reach(cfg.Dir, func(short string) error {
			uc, err := fdrpc.Dial(t.Context(), short)
			if err == nil {
				c = fdrpc.New(uc, nil)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(context.Background()) }()
		t.Cleanup(func() { c.Close(); <-done })
		return c
	}
	for method, in := range map[string]any{"kept": map[string]int{"id": 0}, "take": map[string]int{"id": 1}, "end": nil, "fork": nil} {
		if err := dial().Ask(t.Context(), method, in, nil); !errkind.Is(err, errkind.Refused) {
			t.Errorf("%s: %v", method, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := dial().Ask(t.Context(), "hello", map[string]int{"protocol": 99, "fence": 4, "grace": 0}, nil, null); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("another version: %v", err)
	}
	cfg.Fence++
	take(t, launcher(t, cfg))
}

// Who is not understood says so, and what to do is said beside it.
func TestForkerOfAnotherVersion(t *testing.T) {
	t.Parallel()
	cfg := launch.Config{Dir: t.TempDir(), Fence: 1, Path: "/proc/self/exe", Forker: "/proc/self/exe", Floor: launch.Plain, Cgroups: launch.NoCgroups(), Log: quiet()}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(cfg.Dir, launch.SocketName), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() { l.Close(); served.Wait() })
	served.Go(func() {
		if uc, err := l.AcceptUnix(); err == nil {
			_ = fdrpc.New(uc, nil).Run(context.Background()) // which refuses whatever is asked
		}
	})
	if _, err := launch.New(cfg); !errkind.Is(err, errkind.Invalid) || !strings.Contains(err.Error(), "another version") || !strings.Contains(err.Error(), "SIGTERM") {
		t.Errorf("%v", err)
	}
}

func TestEndWhileNobodyWasThere(t *testing.T) {
	t.Parallel()
	cfg := launch.Config{Dir: t.TempDir(), Fence: 1}
	// Two, because a forker that keeps nothing ends.
	l := launcher(t, cfg)
	a, b := start(t, l, spec(t, "a")), start(t, l, spec(t, "b"))
	isReady(t, a)
	isReady(t, b)
	launch.Die(l, a, b)
	if err := unix.Kill(a.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, a.PID())
	cfg.Fence++
	l = launcher(t, cfg)
	kept := l.Kept()
	if len(kept) != 2 || !kept[0].Ended || kept[0].Ending() != "signal killed" || kept[1].Ended {
		t.Fatalf("%+v", kept)
	}
	if _, err := l.Take(t.Context(), kept[0]); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("taken: %v", err)
	}
	q, err := l.Take(t.Context(), kept[1])
	if err != nil {
		t.Fatal(err)
	}
	launch.Die(l, q)
	cfg.Fence++
	take(t, launcher(t, cfg)) // and the other is forgotten
}

func TestOnlyOneThatServesIsTakenOver(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]errkind.Kind{"mute": errkind.Unavailable, "liar": errkind.Integrity} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := launch.Config{Dir: t.TempDir(), Fence: 1}
			pid, sockets := orphan(t, cfg, name)
			cfg.Fence++
			p := take(t, launcher(t, cfg))
			if have, _, err := p.Greet(t.Context(), sockets); !errkind.Is(err, want) || have != nil {
				t.Errorf("%v, %v", have, err)
			}
			p.Kill()
			gone(t, pid)
		})
	}
}

func TestGrace(t *testing.T) {
	t.Parallel()
	cfg := launch.Config{Dir: t.TempDir(), Fence: 1, Grace: 3 * time.Second}
	l := launcher(t, cfg)
	p := start(t, l, spec(t, "deaf"))
	isReady(t, p)
	forker := launch.ForkerPID(l)
	launch.Die(l, p)
	time.Sleep(100 * time.Millisecond)
	cfg.Fence++
	l = launcher(t, cfg) // in time
	p = take(t, l)
	time.Sleep(cfg.Grace + 500*time.Millisecond)
	if _, err := p.Stats(t.Context()); err != nil {
		t.Fatalf("ended although it was taken over: %v", err)
	}
	launch.Die(l, p)
	gone(t, p.PID())
	gone(t, forker)
}

func TestForkerIsToldToEnd(t *testing.T) {
	t.Parallel()
	l := launcher(t, launch.Config{})
	p := start(t, l, spec(t, "first"))
	isReady(t, p)
	forker := launch.ForkerPID(l)
	if err := unix.Kill(forker, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if _, err := p.Stats(t.Context()); err != nil {
		t.Fatalf("it is for the orchestrator to decide: %v", err)
	}
	launch.Die(l, p)
	if err := unix.Kill(forker, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	gone(t, p.PID())
	gone(t, forker)
}

// A process that is not listened to must not be halted by what it says.
func TestTalkativeOrphan(t *testing.T) {
	t.Parallel()
	cfg := launch.Config{Dir: t.TempDir(), Fence: 1}
	orphan(t, cfg, "talkative")
	time.Sleep(3 * time.Second) // a pipe is full after 64 KiB
	cfg.Fence++
	p := take(t, launcher(t, cfg))
	if st, err := p.Stats(t.Context()); err != nil || st.Tokens < 100<<10 {
		t.Errorf("it said %d bytes, %v", st.Tokens, err)
	}
}

// gone waits until there is no such process, but perhaps a zombie of our own.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		p, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
		threads, _ := os.ReadDir("/proc/" + itoa(pid) + "/task")
		if err != nil || strings.Contains(string(p), ") Z ") && len(threads) <= 1 {
			return
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d lives on", pid)
		}
	}
}
