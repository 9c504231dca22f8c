package launch_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
)

var limits = launch.Limits{Memory: 128 << 20, Pids: 64, CPUWeight: 200}

// fake makes folders with the files that the kernel would make.
func fake(t *testing.T, dir string, files ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func want(t *testing.T, dir, file, value string) {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || strings.TrimSpace(string(p)) != value {
		t.Errorf("%s is %q (%v), want %q", file, p, err, value)
	}
}

// fakeV1 is a host with a hierarchy for each of the controllers, in which the caller
// is in the group own, and has made the group tess and vcm in it, but for disks: that
// one is made when it is needed.
func fakeV1(t *testing.T, root string, controllers ...string) (mounts, own string) {
	t.Helper()
	for i, c := range controllers {
		if dir := filepath.Join(root, c, "own", "tess"); c == "blkio" {
			fake(t, dir)
		} else {
			fake(t, filepath.Join(dir, "vcm"), "memory.limit_in_bytes", "memory.swappiness", "pids.max", "cpu.shares", "cgroup.procs")
		}
		mounts += "30 20 0:2 /box " + root + "/" + c + " rw - cgroup cgroup rw," + c + "\n"
		own += string(rune('1'+i)) + ":" + c + ":/box/own\n"
	}
	return mounts, own
}

// The kernel fills a new group's folder with files; the test does it in advance.
func TestCgroupV1(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	mounts, own := fakeV1(t, root, "memory", "pids", "cpu")
	g, err := launch.FindCgroupsIn(mounts, own, "tess")
	if err != nil {
		t.Fatal(err)
	}
	vcm, err := g.Make("vcm", limits)
	if err != nil {
		t.Fatal(err)
	}
	if err := vcm.Add(42); err != nil || vcm.Version() != "v1" {
		t.Errorf("%v, %s", err, vcm.Version())
	}
	at := func(c string) string { return filepath.Join(root, c, "own", "tess", "vcm") }
	want(t, at("memory"), "memory.limit_in_bytes", "134217728")
	want(t, at("memory"), "memory.swappiness", "0")
	want(t, at("pids"), "pids.max", "64")
	want(t, at("cpu"), "cpu.shares", "2048")
	for _, c := range []string{"memory", "pids", "cpu"} {
		want(t, at(c), "cgroup.procs", "42")
	}
}

func TestCgroupV2(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	own := filepath.Join(root, "own")
	fake(t, own, "cgroup.subtree_control")
	if err := os.WriteFile(filepath.Join(own, "cgroup.controllers"), []byte("cpuset cpu io memory pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	fake(t, filepath.Join(own, "tess"), "cgroup.subtree_control")
	fake(t, filepath.Join(own, "tess", "vcm"), "memory.max", "memory.oom.group", "pids.max", "cpu.weight", "cgroup.procs")
	g, err := launch.FindCgroupsIn("30 20 0:2 / "+root+" rw - cgroup2 cgroup rw\n", "0::/own\n", "tess")
	if err != nil {
		t.Fatal(err)
	}
	want(t, own, "cgroup.subtree_control", "+memory +pids +cpu +io")
	want(t, filepath.Join(own, "tess"), "cgroup.subtree_control", "+memory +pids +cpu +io")
	vcm, err := g.Make("vcm", limits)
	if err != nil {
		t.Fatal(err)
	}
	if err := vcm.Add(42); err != nil || vcm.Version() != "v2" {
		t.Errorf("%v, %s", err, vcm.Version())
	}
	at := filepath.Join(own, "tess", "vcm")
	want(t, at, "memory.max", "134217728")
	want(t, at, "memory.oom.group", "1")
	want(t, at, "pids.max", "64")
	want(t, at, "cpu.weight", "200")
	want(t, at, "cgroup.procs", "42")
}

// A service manager that gives a group away and puts the service into a leaf of it
// marks the group: that is the one to divide. An unmarked one is somebody else's.
func TestCgroupV2OfALeaf(t *testing.T) {
	t.Parallel()
	for _, marked := range []bool{true, false} {
		root := t.TempDir()
		unit, leaf := filepath.Join(root, "unit"), filepath.Join(root, "unit", "leaf")
		for _, dir := range []string{unit, leaf} {
			fake(t, dir, "cgroup.subtree_control")
			fake(t, filepath.Join(dir, "tess"), "cgroup.subtree_control")
			fake(t, filepath.Join(dir, "tess", "vcm"), "memory.max", "memory.oom.group", "pids.max", "cpu.weight", "cgroup.procs")
			if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("cpu memory pids\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		divided, left := leaf, unit
		if marked {
			divided, left = unit, leaf
			if err := unix.Setxattr(unit, "user.delegate", []byte("1"), 0); err != nil {
				t.Fatalf("the folder for temporary files takes no marks of users: %v", err)
			}
		}
		g, err := launch.FindCgroupsIn("30 20 0:2 / "+root+" rw - cgroup2 cgroup rw\n", "0::/unit/leaf\n", "tess")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Make("vcm", limits); err != nil {
			t.Fatal(err)
		}
		want(t, divided, "cgroup.subtree_control", "+memory +pids +cpu")
		want(t, filepath.Join(divided, "tess", "vcm"), "pids.max", "64")
		want(t, left, "cgroup.subtree_control", "")
	}
}

func TestNoCgroup(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	fake(t, root, "cgroup.subtree_control")
	if err := os.WriteFile(filepath.Join(root, "cgroup.controllers"), []byte("hugetlb\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, mounts := range map[string]string{
		"nothing mounted":        "",
		"v2 without controllers": "30 20 0:2 / " + root + " rw - cgroup2 cgroup rw\n",
		"garbage":                "x - y\n\n - \n",
	} {
		if _, err := launch.FindCgroupsIn(mounts, "0::/\n", "tess"); err == nil || !strings.Contains(err.Error(), "no memory controller") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The machine's own control groups, where there are writable ones.
func TestRealCgroup(t *testing.T) {
	g, err := launch.FindCgroups("tesserae-test")
	if os.Geteuid() != 0 || err != nil {
		t.Logf("REDUCED: without root or writable control groups only their replacement is tested (%v)", err)
		if _, err := g.Make("x", limits); err != nil {
			t.Errorf("the replacement fails: %v", err)
		}
		return
	}
	l := launcher(t, launch.Config{Cgroups: g})
	s := spec(t, "census")
	p := start(t, l, s)
	isReady(t, p)
	member, err := os.ReadFile("/proc/" + itoa(p.PID()) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(member), "/tesserae-test/"+s.Start.UUID); n == 0 {
		t.Errorf("not in its group:\n%s", member)
	}
	p.Kill()
	left := 0
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == s.Start.UUID {
			left++
		}
		return nil
	})
	if left != 0 {
		t.Errorf("%d folders are left of its group", left)
	}
}
