package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// low is above the descriptors of every child. A maker leaves none of these
// numbers free, and has the binary at this one: before a child's exec the runtime
// moves descriptors to numbers just above the highest that the child gets,
// whatever is open there.
const low = 64

// maker is the thread of a forker that makes children. It visits their control
// groups and network namespaces, and has descriptors of its own: a child begins
// with a copy of those of its maker's and gives them back one by one, which for
// those that are kept for a thousand other children took as long as all the rest.
type maker struct {
	turn   chan struct{} // who has taken it may give one piece of work
	work   chan func()
	pass   int // end of a socket pair by which the thread gets descriptors
	taken  int // its own end
	spare  spare
	anchor anchor
	born   newborn
}

// newMaker starts the thread. The runtime's poller exists by then: the thread may
// have to wake it, and so needs it under the numbers that the others know.
func newMaker() (*maker, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	m := &maker{turn: make(chan struct{}, 1), work: make(chan func()), pass: ends[0], taken: ends[1]}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		started <- m.settle()
		for do := range m.work {
			do()
			m.spare.prepare()
			m.turn <- struct{}{}
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	m.turn <- struct{}{}
	return m, nil
}

// settle makes the calling thread the maker's.
func (m *maker) settle() error {
	if err := nameThread(); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	// Where it is not to be had, a start costs more.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(vcmcontrol.StartSlack), 0, 0, 0)
	if err := fillLow(); err != nil {
		return err
	}
	m.spare.prepare()
	return nil
}

// fillLow leaves no number up to low free.
func fillLow() error {
	for {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil || fd == low {
			return err
		}
		if fd > low {
			return errors.Join(unix.Dup3(fd, low, unix.O_CLOEXEC), unix.Close(fd))
		}
	}
}

func nameThread() error {
	name := [16]byte{}
	copy(name[:], forkerName)
	return unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}

// await takes the turn, which do or release gives back. Whoever takes it does so
// before k.mu.
func (m *maker) await() { <-m.turn }

func (m *maker) release() { m.turn <- struct{}{} }

// do has fn called by the thread, with files among its descriptors for as long as
// it runs. The turn comes back when the thread is ready for the next one, after do
// has returned.
func (m *maker) do(files []*os.File, fn func(fds []int) error) error {
	fds, err := fdrpc.Descriptors(files)
	if err == nil {
		err = os.NewSyscallError("sendmsg", unix.Sendmsg(m.pass, []byte{0}, unix.UnixRights(fds...), nil, 0))
	}
	if err != nil {
		m.release()
		return errkind.Errorf(errkind.Unavailable, "descriptors of a child: %w", err)
	}
	done := make(chan error, 1)
	m.work <- func() {
		fds, err := m.receive(len(fds))
		if err == nil {
			err = fn(fds)
		}
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		done <- err
	}
	return <-done
}

// receive takes n descriptors that do has passed.
func (m *maker) receive(n int) (fds []int, err error) {
	var data [1]byte
	control := make([]byte, unix.CmsgSpace(4*n))
	_, got, flags, _, err := unix.Recvmsg(m.taken, data[:], control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	fds, err = fdrpc.Rights(control[:got])
	if err == nil && (len(fds) != n || flags&unix.MSG_CTRUNC != 0) {
		err = errkind.Errorf(errkind.Unavailable, "%d descriptors instead of %d", len(fds), n)
	}
	return fds, err
}

// use makes the binary the one that children run.
func (m *maker) use(binary *os.File) error {
	return m.do([]*os.File{binary}, func(fds []int) error { return unix.Dup3(fds[0], low, unix.O_CLOEXEC) })
}

// make makes a child that gets the files. The turn was taken.
func (m *maker) make(o order, files []*os.File) (out made, err error) {
	err = m.do(files, func(fds []int) error {
		o.Flags = m.spare.use(o.Flags)
		if o.Alone {
			m.anchor.drop()
			defer m.anchor.weigh()
		}
		out = m.carryOut(o, fds)
		return nil
	})
	return out, err
}

// carryOut makes the child.
func (m *maker) carryOut(o order, files []int) (out made) {
	out.Born = len(o.Enter) > 0 && move(o.Enter) == nil
	var err error
	out.PID, err = m.fork(o, files)
	if err != nil && !errors.As(err, &out.Errno) {
		out.Errno = unix.EIO
	}
	if len(o.Enter) > 0 {
		if err := move(o.Leave); err != nil {
			fmt.Fprintf(os.Stderr, "%s: leave the control groups of a VCM: %v\n", forkerName, err)
		}
	}
	return out
}

func (m *maker) fork(o order, files []int) (pid int, err error) {
	if m.born.suits(o, files) {
		if pid, err = m.born.make(o, files); err != unix.ENOSYS {
			return pid, err
		}
	}
	numbers := make([]uintptr, len(files))
	for i, fd := range files {
		numbers[i] = uintptr(fd)
	}
	p := plan{flags: o.Flags, ownUID: o.OwnUID}
	return syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", low), []string{o.Name},
		&syscall.ProcAttr{Dir: "/", Env: []string{}, Files: numbers, Sys: p.attributes(o.UID)})
}

// move moves the calling thread into control groups. Unlike a process, or a
// thread of another process, it does so without waiting for all processors to
// have been idle once.
func move(files []string) error {
	for _, path := range files {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, []byte("0"))
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
