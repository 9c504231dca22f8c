package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// starting is held while a process is made: what syscall opens to write the
// new one's identity maps is not closed in another that is made meanwhile.
var starting sync.Mutex

// hostile is built as vcmd is shipped: without cgo.
var hostile string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hostile")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	hostile = filepath.Join(dir, "hostile")
	cmd := exec.Command("go", "build", "-o", hostile, "./testdata/hostile")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	return m.Run()
}

// attack runs one attack and returns what it printed, or the signal's name.
func attack(t *testing.T, name, mode string) string {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	files := make([]*os.File, 2)
	for i := range files {
		here, there, err := fdrpc.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		defer there.Close()
		files[i] = there
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	listener, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cmd := exec.CommandContext(t.Context(), hostile, name, mode)
	cmd.Env = []string{}
	cmd.ExtraFiles = append(files, dir, listener)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if mode == "namespaces" {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	starting.Lock()
	err = cmd.Start()
	starting.Unlock()
	if err == nil {
		err = cmd.Wait()
	}
	var e *exec.ExitError
	if errors.As(err, &e) && e.Sys().(syscall.WaitStatus).Signaled() {
		return unix.SignalName(e.Sys().(syscall.WaitStatus).Signal())
	}
	if err != nil {
		t.Fatalf("%s, %s: %v\n%s", name, mode, err, &stderr)
	}
	return strings.TrimSpace(stdout.String())
}

// Each attack works where there is no sandbox, and ends as it should in one.
func TestAttacks(t *testing.T) {
	t.Parallel()
	const killed = "SIGSYS"
	for name, want := range map[string]struct{ free, process, namespaces string }{
		"socket":                {"allowed", killed, killed},
		"ptrace":                {"", killed, killed}, // what happens without depends on the host's policy and the tracer
		"mount":                 {"", killed, killed}, // needs root without
		"exec":                  {"allowed", killed, killed},
		"fork":                  {"allowed", "", ""}, // refused in one of several ways, by what os/exec tries first
		"keyctl":                {"", killed, killed},
		"passwd":                {"allowed", "EACCES", "ENOENT"},
		"environ of the parent": {"allowed", "EACCES", "ENOENT"},
		"climb":                 {"allowed", "EACCES", "ENOENT"},
		"signal":                {"allowed", "EPERM", "EPERM"},
		"new code":              {"allowed", "EPERM", "EPERM"},
		"become dumpable":       {"allowed", "EPERM", "EPERM"},
		"raise a limit":         {"allowed", "EPERM", "EPERM"},
		"another filter":        {"allowed", killed, killed},
		"make a file":           {"allowed", "EACCES", "EACCES"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if want.free != "" {
				if got := attack(t, name, "free"); got != want.free {
					t.Errorf("without a sandbox: %s, so that the attack proves nothing", got)
				}
			}
			for mode, want := range map[string]string{"process": want.process, "namespaces": want.namespaces} {
				got := attack(t, name, mode)
				if want == "" && got == "allowed" || want != "" && got != want {
					t.Errorf("%s: %s, want %s", mode, got, want)
				}
			}
		})
	}
}

func report(t *testing.T, mode string) Report {
	t.Helper()
	var r Report
	if err := json.Unmarshal([]byte(attack(t, "report", mode)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReports(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{"process": Landlock, "namespaces": Rootless} {
		r := report(t, mode)
		if r.Level != want {
			t.Errorf("%s: level %s, want %s: %+v", mode, r.Level, want, r.Controls)
		}
		for _, c := range r.Controls {
			if c.Wanted == "" || c.Got == "" || c.Proof == "" || (c.Got == Enforced) != (c.Reason == "") {
				t.Errorf("%s: incomplete line %+v", mode, c)
			}
		}
	}
}

// The level falls with each of its controls, and the refusal names it.
func TestALevelNeedsAllItsControls(t *testing.T) {
	t.Parallel()
	var all []string
	for _, l := range levels() {
		all = append(all, needed(l)...)
	}
	whole := func(except string) (r Report) {
		for _, name := range all {
			got := Enforced
			if name == except {
				got = Absent
			}
			r.add(name, "w", got, "why not", "p")
		}
		r.Level = r.level()
		return r
	}
	if l := whole("").Level; l != Full {
		t.Errorf("everything enforced: %s", l)
	}
	for i, level := range levels()[:3] {
		for _, name := range needed(level) {
			r := whole(name)
			if r.Level != levels()[i+1] {
				t.Errorf("without %s: level %s, want %s", name, r.Level, levels()[i+1])
			}
			for j, floor := range levels() {
				err := r.admit(floor)
				if (err != nil) != (j <= i) {
					t.Errorf("without %s, floor %s: %v", name, floor, err)
				}
				if err != nil && (!errkind.Is(err, errkind.Refused) || !strings.Contains(err.Error(), name)) {
					t.Errorf("without %s, floor %s: %v", name, floor, err)
				}
			}
		}
	}
	if err := whole("").admit("none"); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("unknown floor: %v", err)
	}
}
