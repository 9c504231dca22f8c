package launch

import (
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// wait is cmd.Wait without a thread that blocks as long as the process lives: a
// unit has a thousand of them, and each would make every collection of garbage
// and every start of another process slower.
func wait(cmd *exec.Cmd) error {
	if f := handle(cmd.Process); f != nil {
		awaitEnd(f)
		_ = f.Close()
	}
	return cmd.Wait()
}

// handle is a descriptor of a process that was not waited for yet. It becomes
// readable with the process's end; nil where the kernel has no such thing.
func handle(p *os.Process) *os.File {
	fd, err := unix.PidfdOpen(p.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "process")
}

// awaitEnd returns at the process's end, or at once if that cannot be waited for
// in this way.
func awaitEnd(f *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Read(func(fd uintptr) bool {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(set, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}
