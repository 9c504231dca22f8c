package launch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
)

// Who would keep them? What is left of them comes to the launcher's process.
func TestChildrenEndWithTheForker(t *testing.T) {
	t.Parallel()
	l := launcher(t, launch.Config{})
	first := start(t, l, spec(t, "first"))
	isReady(t, first)
	pid := launch.ForkerPID(l)
	if pid == 0 || pid == os.Getpid() {
		t.Fatalf("the forker is %d", pid)
	}
	if got := parent(t, first.PID()); got != pid {
		t.Errorf("the child's parent is %d, not %d", got, pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the child lives on")
	}
	if !strings.Contains(first.Ending(), "killed") {
		t.Errorf("ended with %s", first.Ending())
	}
	second := start(t, l, spec(t, "second"))
	isReady(t, second)
	if now := launch.ForkerPID(l); now == pid || now == 0 {
		t.Errorf("the forker is %d, was %d", now, pid)
	}
	for _, gone := range []int{pid, first.PID()} {
		if p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", gone)); err == nil {
			t.Errorf("left over: %s", p)
		}
	}
}

// The forker makes a network namespace before it is asked for a child. Each child
// has its own all the same, and none has the forker's or ours.
func TestChildrenShareNoNetwork(t *testing.T) {
	t.Parallel()
	l := launcher(t, launch.Config{})
	seen := map[string]string{}
	for _, name := range []string{"first", "second", "third"} {
		p := start(t, l, spec(t, name))
		isReady(t, p)
		for _, who := range []string{fmt.Sprint(p.PID()), fmt.Sprintf("%d", launch.ForkerPID(l)), "self"} {
			ns, err := os.Readlink("/proc/" + who + "/ns/net")
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := seen[ns]; ok && other != who {
				t.Errorf("%s is in %s as %s is", who, ns, other)
			}
			if who == fmt.Sprint(p.PID()) {
				seen[ns] = who
			}
		}
	}
}

func stat(t *testing.T, pid int) string {
	t.Helper()
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

func parent(t *testing.T, pid int) (ppid int) {
	t.Helper()
	_, rest, _ := strings.Cut(stat(t, pid), ") ")
	if _, err := fmt.Sscanf(rest, "%1s %d", new(string), &ppid); err != nil {
		t.Fatal(err)
	}
	return ppid
}

func TestChildThatRunsNothingIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vcmd")
	if err := os.WriteFile(path, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := launch.New(launch.Config{Path: path, Floor: launch.Plain, UIDBase: 1_879_100_000, Cgroups: launch.NoCgroups(), Forker: exe, Dir: t.TempDir(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if p, err := l.Launch(t.Context(), spec(t, "none")); err == nil {
		p.Kill()
		t.Fatal("it was started")
	} else if !strings.Contains(err.Error(), syscall.ENOEXEC.Error()) {
		t.Errorf("%v", err)
	}
	for _, pid := range children(t, launch.ForkerPID(l)) {
		if p, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid)); err == nil && strings.Contains(string(p), ") Z") {
			t.Errorf("left over: %s", p)
		}
	}
}

func children(t *testing.T, of int) (pids []string) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", of))
	if err != nil || len(lists) == 0 {
		t.Fatalf("this kernel does not list children (%v)", err)
	}
	for _, list := range lists {
		p, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(p))...)
	}
	return pids
}

// place is a control group that is told by files how it was used.
type place struct {
	dir   string
	added chan int
}

func (p place) Make(string, launch.Limits) (launch.Group, error) { return p, nil }
func (p place) Adopt(string, string, []string) launch.Group      { return p }
func (p place) Throttle(int, launch.Disk, int64) error           { return nil }
func (p place) Close() error                                     { return nil }
func (p place) Version() string                                  { return "v1" }
func (p place) Remove()                                          {}
func (p place) Dirs() []string                                   { return nil }
func (p place) Sweep(func(string) bool) bool                     { return false }
func (p place) Add(pid int) error                                { p.added <- pid; return nil }
func (p place) Visit() (enter, leave []string) {
	return []string{filepath.Join(p.dir, "in")}, []string{filepath.Join(p.dir, "out")}
}

func TestChildIsBornInItsGroup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make []string
		born bool
	}{{"born", []string{"in", "out"}, true}, {"added", []string{"out"}, false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := place{dir: t.TempDir(), added: make(chan int, 1)}
			for _, name := range c.make {
				if err := os.WriteFile(filepath.Join(g.dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p := start(t, launcher(t, launch.Config{Cgroups: g}), spec(t, "ready"))
			isReady(t, p)
			for _, name := range c.make {
				if got, err := os.ReadFile(filepath.Join(g.dir, name)); err != nil || string(got) != "0" {
					t.Errorf("%s holds %q, %v", name, got, err)
				}
			}
			select {
			case pid := <-g.added:
				if c.born || pid != p.PID() {
					t.Errorf("%d was added", pid)
				}
			default:
				if !c.born {
					t.Error("it is in no group")
				}
			}
		})
	}
}

func TestForkerEndsWithItsLauncher(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := launch.New(launch.Config{Path: exe, Floor: launch.Plain, UIDBase: 1_879_100_000, Cgroups: launch.NoCgroups(), Forker: exe, Dir: t.TempDir(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, l, spec(t, "ready"))
	isReady(t, p)
	pid := launch.ForkerPID(l)
	p.Kill()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("forker %d lives on", pid)
		}
	}
}
