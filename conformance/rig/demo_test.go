package rig_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
)

var binaries rigtest.Binaries

func TestMain(m *testing.M) { os.Exit(binaries.Main(m)) }

// nobody is a user without any privilege on Linux systems.
const nobody = 65534

// demoTimeout bounds one run of the demo.
const demoTimeout = 3 * time.Minute

// demo runs the demo with a folder of its own for temporary files, as the user of
// the test or as nobody, and checks that it leaves nothing: no file there, no
// process that knows the folder. The demo itself checks on the VCMs' processes.
func demo(t *testing.T, unprivileged bool) string {
	t.Helper()
	bin := binaries.Dir(t)
	dir, err := os.MkdirTemp("", "tess-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(t.Context(), demoTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "demo"), "-bin", bin)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=/usr/bin:/bin"}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	if unprivileged {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("the demo failed: %v\n%s", err, out.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the demo left %v in %s: %v", left, dir, err)
	}
	for _, p := range knowing(t, dir) {
		t.Errorf("the demo left a process: %s", p)
	}
	return out.String()
}

// knowing are the processes whose command line names a folder.
func knowing(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		p, err := os.ReadFile(f)
		if err == nil && bytes.Contains(p, []byte(dir)) {
			out = append(out, fmt.Sprintf("%s: %q", f, p))
		}
	}
	return out
}

// TestTwoDemos runs the demo twice at once, as the user of the test.
func TestTwoDemos(t *testing.T) {
	t.Parallel()
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { finished(t, demo(t, false)) })
	}
	both.Wait()
}

// TestUnprivilegedDemo runs the demo as nobody. Where the test itself has no
// privilege, every demo is one without.
func TestUnprivilegedDemo(t *testing.T) {
	t.Parallel()
	asRoot := os.Geteuid() == 0
	if !asRoot {
		t.Logf("this test runs as uid %d, and so does the demo", os.Geteuid())
	}
	out := demo(t, asRoot)
	finished(t, out)
	if strings.Contains(out, "│ full ") {
		t.Error("a VCM claims an isolation that takes privilege")
	}
}

// finished checks the last line and what the meters said on the way.
func finished(t *testing.T, out string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "demo: ok in ") {
		t.Errorf("the demo ends with %q", last)
	}
	for _, said := range []string{"10.2 kWh", "used-error", "new key: SGC 400400", "15.2 kWh"} {
		if !strings.Contains(out, said) {
			t.Errorf("the meters did not say %q", said)
		}
	}
}
