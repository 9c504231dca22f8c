package launch_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/bits"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// direct is a launcher that makes its processes itself.
const direct = "-"

func launcher(t *testing.T, cfg launch.Config) *launch.Launcher {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Path, cfg.Log = exe, quiet()
	if cfg.Forker == "" {
		cfg.Forker = exe
	} else if cfg.Forker == direct {
		cfg.Forker = ""
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Floor == "" {
		cfg.Floor = launch.Plain
	}
	if cfg.Cgroups == nil {
		cfg.Cgroups = launch.NoCgroups()
	}
	cfg.UIDBase = 1_879_100_000
	if cfg.Grace == 0 { // so that nothing is left of a test that is killed
		cfg.Grace = 20 * time.Second
	}
	l, err := launch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func spec(t *testing.T, name string) launch.Spec {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return launch.Spec{
		Start:   vcmcontrol.Start{UUID: uuid.NewString(), Name: name},
		DataDir: t.TempDir() + "/data",
		Slot:    3,
		Sockets: []network.Socket{{Service: "tokenapi", Address: l.Addr().String(), File: f}},
		Limits:  launch.Limits{Memory: 256 << 20, Pids: 100, CPUWeight: 100},
		Attach:  keepOpen(t),
	}
}

// keepOpen stands for the unit: it holds its end of the channel until the test ends.
func keepOpen(t *testing.T) func(context.Context, *os.File) error {
	return func(_ context.Context, f *os.File) error {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		return nil
	}
}

func start(t *testing.T, l *launch.Launcher, s launch.Spec) *launch.Process {
	t.Helper()
	p, err := l.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func isReady(t *testing.T, p *launch.Process) vcmcontrol.Ready {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := p.Ready(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestChildGetsExactlyWhatIsDeclared(t *testing.T) {
	t.Parallel()
	for name, forker := range map[string]string{"by the forker": "", "directly": direct} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			getsExactlyWhatIsDeclared(t, launch.Config{Forker: forker})
		})
	}
}

// Children stay where they were made until they have something to do.
func TestChildrenGetTheProcessorsByTurns(t *testing.T) {
	t.Parallel()
	l := launcher(t, launch.Config{})
	const rounds = 4
	homes := map[int]int{}
	for range rounds * runtime.NumCPU() {
		var c census
		if err := json.Unmarshal([]byte(isReady(t, start(t, l, spec(t, "census"))).Controls[0].Proof), &c); err != nil {
			t.Fatal(err)
		}
		homes[c.Home]++
	}
	for home, n := range homes {
		if n != rounds || len(homes) != runtime.NumCPU() {
			t.Errorf("%d children were made on processor %d of %d, want %d", n, home, runtime.NumCPU(), rounds)
		}
	}
}

func getsExactlyWhatIsDeclared(t *testing.T, cfg launch.Config) {
	t.Helper()
	s := spec(t, "census")
	p := start(t, launcher(t, cfg), s)
	var c census
	if err := json.Unmarshal([]byte(isReady(t, p).Controls[0].Proof), &c); err != nil {
		t.Fatal(err)
	}
	if want := []int{0, 1, 2, 3, 4, 5, 6}; !slices.Equal(c.FDs, want) {
		t.Errorf("descriptors %v, want %v", c.FDs, want)
	}
	if len(c.Env) != 0 || !slices.Equal(c.Args, []string{"vcmd " + s.Start.UUID}) {
		t.Errorf("environment %q, arguments %q", c.Env, c.Args)
	}
	// Made on one processor, it is told of all; otherwise there is nothing to tell.
	if all := runtime.NumCPU(); len(c.Told) == 0 && c.Processors != all || len(c.Told) > 0 && (c.Processors != 1 || count(c.Told) != all) || len(c.Told) > 0 != (cfg.Forker == "") {
		t.Errorf("made on %d of %d processors and told of %x", c.Processors, all, c.Told)
	}
	if len(c.Told) > 0 && c.Slack != vcmcontrol.StartSlack {
		t.Errorf("its timers may be %v late, want %v", c.Slack, vcmcontrol.StartSlack)
	}
	if len(c.Isolation.Namespaces) != 6 {
		t.Fatalf("this kernel granted the namespaces %v only; the full set is needed to test them", c.Isolation.Namespaces)
	}
	if c.PID != 1 || c.UID != 0 || c.Nets != 0 {
		t.Errorf("pid %d, uid %d, %d interfaces up; want 1, 0 (of its own namespace), none", c.PID, c.UID, c.Nets)
	}
	if root := os.Geteuid() == 0; c.Isolation.DistinctUID != root {
		t.Errorf("distinct uid %v, want %v", c.Isolation.DistinctUID, root)
	}
	if os.Geteuid() == 0 {
		var st unix.Stat_t
		if err := unix.Stat(s.DataDir, &st); err != nil || st.Uid != 1_879_100_003 || st.Mode&0o777 != 0o700 {
			t.Errorf("data directory: uid %d mode %o (%v)", st.Uid, st.Mode, err)
		}
	}
}

func count(mask []uint64) (n int) {
	for _, w := range mask {
		n += bits.OnesCount64(w)
	}
	return n
}

func TestStatsModeAndStop(t *testing.T) {
	t.Parallel()
	p := start(t, launcher(t, launch.Config{}), spec(t, "busy"))
	isReady(t, p)
	if st, err := p.Stats(t.Context()); err != nil || st.Requests != 7 {
		t.Errorf("stats %+v, %v", st, err)
	}
	if m, err := p.Mode(t.Context()); err != nil || !m.Operational {
		t.Errorf("mode %+v, %v", m, err)
	}
	if err := p.Stop(t.Context(), vcmcontrol.Stop{Drain: 100}); !errkind.Is(err, errkind.Mode) {
		t.Errorf("stop of an operational VCM: %v", err)
	}
	if _, err := p.Stats(t.Context()); err != nil {
		t.Errorf("it does not serve on: %v", err)
	}
	if err := p.Stop(t.Context(), vcmcontrol.Stop{Force: true, Drain: 100}); err != nil {
		t.Errorf("forced stop: %v", err)
	}
	<-p.Done()
	if p.Ending() != "exit code 0" {
		t.Errorf("ended with %s", p.Ending())
	}
}

func TestDeafChildIsKilled(t *testing.T) {
	t.Parallel()
	p := start(t, launcher(t, launch.Config{}), spec(t, "deaf"))
	isReady(t, p)
	if err := p.Stop(t.Context(), vcmcontrol.Stop{Drain: 1}); err != nil {
		t.Error(err)
	}
	select {
	case <-p.Done():
		if !strings.Contains(p.Ending(), "signal") {
			t.Errorf("ended with %s", p.Ending())
		}
	default:
		t.Error("Stop returned before the end")
	}
}

func TestReadyTellsWhyNot(t *testing.T) {
	t.Parallel()
	l := launcher(t, launch.Config{})
	for name, want := range map[string]struct {
		text  string
		kind  errkind.Kind
		final bool
	}{
		"exit":  {"ended before it was ready: exit code 9", errkind.Unavailable, false},
		"fail":  {"the store is torn", errkind.Integrity, false},
		"final": {"the store is torn", errkind.Integrity, true},
		"mute":  {"not ready in time", errkind.Unavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			patience := 20 * time.Second
			if name == "mute" {
				patience = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			p, err := l.Launch(t.Context(), spec(t, name))
			if err == nil { // one that exits at once may do so before it answers the start
				t.Cleanup(p.Kill)
				_, err = p.Ready(ctx)
			}
			if err == nil || !strings.Contains(err.Error(), want.text) || !errkind.Is(err, want.kind) {
				t.Fatalf("%v (%v), want %q (%v)", err, errkind.Of(err), want.text, want.kind)
			}
			if final := launch.IsFinal(err); final != want.final {
				t.Errorf("final = %v", final)
			}
		})
	}
}

func TestFloorIsRefusedBeforeAnythingRuns(t *testing.T) {
	t.Parallel()
	// Without control groups nothing reaches full, whoever runs this.
	l := launcher(t, launch.Config{Floor: launch.Full})
	p, err := l.Launch(t.Context(), spec(t, "census"))
	if err == nil {
		p.Kill()
		t.Fatal("started below the floor")
	}
	if !errkind.Is(err, errkind.Refused) || !strings.Contains(err.Error(), "below the floor full") {
		t.Errorf("%v", err)
	}
}

func TestBelow(t *testing.T) {
	t.Parallel()
	levels := launch.Levels()
	for i, level := range levels {
		for j, floor := range levels {
			if got := launch.Below(level, floor); got != (i > j) {
				t.Errorf("Below(%s, %s) = %v", level, floor, got)
			}
		}
		if !launch.Below("magic", level) {
			t.Errorf("an unknown level is not below %s", level)
		}
	}
}

func TestUnitThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := spec(t, "census")
	s.Attach = func(context.Context, *os.File) error { return errkind.Errorf(errkind.Unavailable, "away") }
	_, err := launcher(t, launch.Config{}).Launch(t.Context(), s)
	if !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("%v", err)
	}
}

func TestControlSocketLostEndsTheChild(t *testing.T) {
	t.Parallel()
	here, there, err := fdrpc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	here.Close()
	there.Close()
	p := start(t, launcher(t, launch.Config{}), spec(t, "census"))
	isReady(t, p)
	launch.Disconnect(p)
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the child outlived its control socket")
	}
}

func TestNoDescriptorAndNoProcessIsLeft(t *testing.T) {
	for _, forker := range []string{"", direct} {
		leavesNothing(t, launcher(t, launch.Config{Forker: forker}))
	}
}

func leavesNothing(t *testing.T, l *launch.Launcher) {
	t.Helper()
	s := spec(t, "census")
	s.Attach = func(context.Context, *os.File) error { return nil }
	round := func() {
		p, err := l.Launch(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		isReady(t, p)
		p.Kill()
	}
	round()
	before := openFDs(t)
	for range 5 {
		round()
	}
	if after := openFDs(t); after > before {
		t.Errorf("%d descriptors open before, %d after", before, after)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}
