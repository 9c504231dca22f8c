package neighbour

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// StartElsewhere starts a client that in truth runs on another machine: it gets
// the processor only when nobody else wants it.
func StartElsewhere(cmd *exec.Cmd) error {
	// A session of its own, which is what the kernel's automatic groups go by:
	// within one, a priority says nothing to those outside of it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	err := syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, 19)
	group := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", cmd.Process.Pid), []byte("19"), 0)
	if err == nil && !errors.Is(group, fs.ErrNotExist) { // no such groups in this kernel
		err = group
	}
	if err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return nil
}
