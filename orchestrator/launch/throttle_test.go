package launch_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
)

const disk launch.Disk = "254:0"

// Nobody is put into a further group before there is a reason.
func TestThrottleV1(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	mounts, own := fakeV1(t, root, "memory", "pids", "cpu", "blkio")
	g, err := launch.FindCgroupsIn(mounts, own, "tess")
	if err != nil {
		t.Fatal(err)
	}
	made, err := g.Make("vcm", limits)
	if err != nil {
		t.Fatal(err)
	}
	slow := filepath.Join(root, "blkio", "own", "tess", "vcm")
	for _, vcm := range []launch.Group{made, g.Adopt("vcm", made.Version(), made.Dirs())} {
		if err := vcm.Throttle(42, disk, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(slow); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("a group for a VCM that is not throttled: %v", err)
		}
		fake(t, slow, "blkio.throttle.write_bps_device", "cgroup.procs")
		if err := vcm.Throttle(42, disk, 1<<20); err != nil {
			t.Fatal(err)
		}
		want(t, slow, "blkio.throttle.write_bps_device", "254:0 1048576")
		want(t, slow, "cgroup.procs", "42")
		if err := os.RemoveAll(slow); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(slow, 0o755); err != nil {
		t.Fatal(err)
	}
	g.Sweep(func(string) bool { return false })
	if _, err := os.Stat(slow); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group of a VCM that is gone was left: %v", err)
	}
}

func TestThrottleV2(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	vcm := launch.NoCgroups().Adopt("vcm", "v2", []string{dir})
	if err := vcm.Throttle(42, disk, 1<<20); err != nil {
		t.Errorf("without the controller: %v", err)
	}
	fake(t, dir, "io.max")
	for rate, said := range map[int64]string{1 << 20: "254:0 wbps=1048576", 0: "254:0 wbps=max"} {
		if err := os.Truncate(filepath.Join(dir, "io.max"), 0); err != nil {
			t.Fatal(err)
		}
		if err := vcm.Throttle(42, disk, rate); err != nil {
			t.Fatal(err)
		}
		want(t, dir, "io.max", said)
	}
}

func TestDiskOfAFolder(t *testing.T) {
	t.Parallel()
	here, err := launch.DiskOf(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	missing, err := launch.DiskOf(filepath.Join(t.TempDir(), "not", "there"))
	if err != nil || missing != here {
		t.Errorf("%q and %v for a folder that is missing, %q for one that is there", missing, err, here)
	}
	if none, err := launch.DiskOf("/proc"); err != nil || none != "" {
		t.Errorf("%q, %v: a file system without a disk", none, err)
	}
	if here != "" {
		if n, err := here.Written(); err != nil || n <= 0 {
			t.Errorf("%d bytes were written to %s: %v", n, here, err)
		}
	}
}
