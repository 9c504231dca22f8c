package launch

import (
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// child is a process that was started, and what it says on standard error.
type child struct {
	process *os.Process
	said    *os.File
	heard   chan struct{} // closed when all of it was read
}

func newChild(p *os.Process, said *os.File, to *words) *child {
	c := &child{process: p, said: said, heard: make(chan struct{})}
	go func() {
		defer close(c.heard)
		_, _ = to.ReadFrom(said)
	}()
	return c
}

// wait returns after the process's end, without a thread that blocks as long as
// it lives: a unit has a thousand of them, and each would make every collection
// of garbage and every start of another process slower.
func (c *child) wait() error {
	if f := handle(c.process); f != nil {
		awaitEnd(f)
		_ = f.Close()
	}
	state, err := c.process.Wait()
	_ = c.said.SetReadDeadline(time.Now().Add(lingering)) // somebody else may hold the other end
	<-c.heard
	_ = c.said.Close()
	if err == nil && !state.Success() {
		err = &exec.ExitError{ProcessState: state}
	}
	return err
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
