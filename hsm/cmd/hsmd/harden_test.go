package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/device"
)

// TestRunningUnitIsHardened looks at a running hsmd from outside.
func TestRunningUnitIsHardened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := device.Initialise(device.Config{Dir: dir}, ""); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(os.Args[0], "run", "--state", dir, "--socket", socket)
	cmd.Env = []string{asHSMD + "=1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := dial(t, socket)
	proc := "/proc/" + strconv.Itoa(cmd.Process.Pid)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), line) {
			t.Errorf("status lacks %q", line)
		}
	}
	limits, err := os.ReadFile(proc + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (f[4] != "0" || f[5] != "0") {
			t.Errorf("core dumps: %q", line)
		}
	}
	client.Close()
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket stayed: %v", err)
	}
}
