package launch

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is a process that was started, and what it says on standard error.
type child struct {
	pid    int
	handle *os.File                           // of the process; readable after its end
	status func() (syscall.WaitStatus, error) // after its end, once
	said   *os.File
	heard  chan struct{} // closed when all of it was read
}

func newChild(pid int, handle *os.File, status func() (syscall.WaitStatus, error), said *os.File, to *words) *child {
	c := &child{pid: pid, handle: handle, status: status, said: said, heard: make(chan struct{})}
	go func() {
		defer close(c.heard)
		_, _ = to.ReadFrom(said)
	}()
	return c
}

// exitError is how a process ended otherwise than with exit code 0.
type exitError syscall.WaitStatus

func (e exitError) Error() string {
	if s := syscall.WaitStatus(e); s.Signaled() {
		return fmt.Sprintf("signal %s", s.Signal())
	}
	return fmt.Sprintf("exit code %d", syscall.WaitStatus(e).ExitStatus())
}

// errLeft is why a process is not waited for any longer.
var errLeft = errors.New("it was left running")

// wait returns after the process's end, or after leave, without a thread that
// blocks as long as it lives: a unit has a thousand of them, and each would make
// every collection of garbage and every start of another process slower.
func (c *child) wait() error {
	left := awaitEnd(c.handle) != nil
	_ = c.handle.Close()
	err := errLeft
	if !left {
		var s syscall.WaitStatus
		if s, err = c.status(); err != nil {
			err = fmt.Errorf("nobody saw how: %w", err)
		} else if s != 0 {
			err = exitError(s)
		}
	}
	patience := lingering // somebody else may hold the other end
	if left {
		patience = 0
	}
	_ = c.said.SetReadDeadline(time.Now().Add(patience))
	<-c.heard
	_ = c.said.Close()
	return err
}

// leave lets wait return although the process goes on.
func (c *child) leave() { _ = c.handle.Close() }

func (c *child) signal(s syscall.Signal) {
	raw, err := c.handle.SyscallConn()
	if err != nil {
		return // it has ended, or was left
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.Signal(s), nil, 0) })
}

// handle is a descriptor of a process that was not waited for yet. It becomes
// readable with the process's end.
func handle(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), "process"), nil
}

// awaitEnd returns nil at the process's end. An error means that the descriptor
// was closed, or that its deadline is over.
func awaitEnd(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Read(func(fd uintptr) bool {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(set, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}
