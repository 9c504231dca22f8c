package launch_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
)

// facts are what the kernel says of a process.
func facts(t *testing.T, p *launch.Process) map[string]string {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	out := map[string]string{}
	for line := range strings.Lines(read("status")) {
		name, value, _ := strings.Cut(line, ":")
		out[name] = strings.TrimSpace(value)
	}
	for _, name := range []string{"uid_map", "gid_map", "setgroups", "environ"} {
		out[name] = read(name)
	}
	var err error
	if out["cwd"], err = os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.PID())); err != nil {
		t.Fatal(err)
	}
	var session int
	_, rest, _ := strings.Cut(stat(t, p.PID()), ") ")
	if _, err := fmt.Sscanf(rest, "%1s %d %d %d", new(string), new(int), new(int), &session); err != nil {
		t.Fatal(err)
	}
	out["leads its session"] = fmt.Sprint(session == p.PID())
	return out
}

// What a child is does not depend on who makes it: the runtime, or in a forker the
// list of system calls that does it faster. That also forbids new privileges.
func TestForkersChildIsAsTheRuntimeMakesIt(t *testing.T) {
	t.Parallel()
	children := map[string]map[string]string{}
	for _, forker := range []string{direct, ""} {
		p := start(t, launcher(t, launch.Config{Forker: forker}), spec(t, "ready"))
		isReady(t, p)
		children[forker] = facts(t, p)
	}
	want, got := children[direct], children[""]
	for _, name := range []string{
		"Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "Umask",
		"uid_map", "gid_map", "setgroups", "environ", "cwd", "leads its session",
	} {
		if got[name] != want[name] {
			t.Errorf("%s is %q, of the runtime's child %q", name, got[name], want[name])
		}
	}
	if n := got["NoNewPrivs"]; runtime.GOARCH == "amd64" && n != "1" {
		t.Errorf("NoNewPrivs is %s", n)
	}
}
