package neighbour_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestWriterIsThrottled lets a VCM that was taken over write as fast as the disk
// lets it: soon it writes no more than a VCM is granted. Without control groups it
// goes on.
func TestWriterIsThrottled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("REDUCED: without root VCMs have no control groups: what one writes is not bounded")
		return
	}
	const (
		noticed = 2 * time.Second
		lasts   = 2 * time.Second
		// granted is what may be written within that: the kernel's limit is an average,
		// and what it counts for a process is more than what reaches the disk.
		granted = 3 * (32 << 20) * int64(lasts/time.Second)
	)
	written := func(without ...string) int64 {
		v := newUnit(t, without...).vcm("noisy")
		stop := v.order(t, "scratch", nil, noticed+lasts)
		time.Sleep(noticed)
		before := v.written(t)
		time.Sleep(lasts - 200*time.Millisecond)
		after := v.written(t)
		t.Logf("without %q: %d MiB; %s", without, (after-before)>>20, stop())
		return after - before
	}
	bounded := written()
	if bounded > granted {
		t.Errorf("a VCM wrote %d MiB in %s, which is more than %d", bounded>>20, lasts, granted>>20)
	}
	if free := written("cgroup"); free <= granted {
		t.Logf("REDUCED: this disk takes no more than %d MiB in %s: that a VCM writes little proves nothing", free>>20, lasts)
	}
}

// written is what the kernel counts of the VCM's process.
func (v *vcm) written(t testing.TB) int64 {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if words, err := os.ReadFile(path); err != nil || !bytes.Contains(words, []byte(v.uuid)) {
			continue
		}
		io, err := os.ReadFile(filepath.Join(filepath.Dir(path), "io"))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(io), "\n") {
			if n, ok := strings.CutPrefix(line, "write_bytes: "); ok {
				bytes, err := strconv.ParseInt(n, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return bytes
			}
		}
	}
	t.Fatalf("VCM %s has no process", v.uuid)
	return 0
}
