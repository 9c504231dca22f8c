package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// forkerName is the forker's argv[0] and the name of its thread that makes
// children, which they have until they run the binary. Its argument is the folder
// of the orchestrator that it belongs to, for who looks at the host's processes.
const forkerName = "vcm-forker"

// forkerSocket is the listening socket of a forker.
const forkerSocket = 3

// low is above the descriptors of every child. A forker leaves none of these
// numbers free, and has the binary at this one: before a child's exec the runtime
// moves descriptors to numbers just above the highest that the child gets,
// whatever is open there.
const low = 64

// forgotten is how long a forker waits for its first orchestrator.
const forgotten = 30 * time.Second

// ServeForker is the whole life of a forker; in any other process it does
// nothing. A program whose Config names it as Forker calls it first in main.
func ServeForker() {
	if os.Args[0] != forkerName {
		return
	}
	// The kernel counts a process's memory where its first thread is. That stays
	// in the orchestrator's control group; another one visits those of the VCMs.
	runtime.LockOSThread()
	if err := serveForker(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", forkerName, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveForker() error {
	if err := fillLow(); err != nil {
		return err
	}
	l, err := net.FileListener(os.NewFile(forkerSocket, socketName))
	if err != nil {
		return err
	}
	// Notified rather than ignored: what is ignored stays so in a child. The end of
	// a terminal or of a log's reader is not the end of the VCMs.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	k := newKeeper()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- nameThread()
		k.spare.prepare()
		for job := range k.jobs {
			job()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	go k.accept(l)
	go k.heed(signals)
	k.wait()
	k.clear()
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

// accept serves orchestrators of the forker's own user, and root's.
func (k *keeper) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors: processes end
			continue
		}
		uc, ok := c.(*net.UnixConn)
		if !ok || admit(uc) != nil {
			_ = c.Close()
			continue
		}
		go k.serve(uc)
	}
}

// admit checks who is at the other end.
func admit(uc *net.UnixConn) error {
	peer, err := fdrpc.PeerOf(uc)
	if err == nil && peer.UID != 0 && peer.UID != uint32(os.Geteuid()) {
		err = errkind.Errorf(errkind.Unauthorised, "process %d of user %d", peer.PID, peer.UID)
	}
	return err
}

// serve is one connection.
func (k *keeper) serve(uc *net.UnixConn) {
	c := fdrpc.New(uc, k.answer)
	greeted := time.AfterFunc(forkTimeout, func() {
		if !k.obeys(c) {
			_ = c.Close()
		}
	})
	defer greeted.Stop()
	_ = c.Run(context.Background()) // however it ended, the orchestrator is gone
	k.leave(c)
}

func (k *keeper) answer(_ context.Context, c *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
	defer func() {
		for _, f := range r.Files {
			_ = f.Close()
		}
	}()
	if r.Method == methodHello {
		return k.hello(c, r)
	}
	if !k.obeys(c) {
		return fdrpc.Reply{}, errNoMaster
	}
	switch r.Method {
	case methodFork:
		return k.fork(c, r)
	case methodKept:
		var a after
		if err := r.Decode(&a); err != nil {
			return fdrpc.Reply{}, err
		}
		return fdrpc.Reply{Body: k.list(a.ID)}, nil
	case methodTake:
		return k.take(r)
	case methodKill:
		return k.kill(r)
	case methodForget:
		return k.forget(r)
	case methodEnd:
		k.endAll()
		return fdrpc.Reply{Sent: k.quit}, nil
	}
	return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "unknown method %.40q", r.Method)
}

var errNoMaster = errkind.Errorf(errkind.Refused, "another orchestrator has taken over")

// fork has the child made by the thread that visits control groups.
func (k *keeper) fork(c *fdrpc.Conn, r fdrpc.Request) (reply fdrpc.Reply, err error) {
	var o order
	if err := r.Decode(&o); err != nil {
		return reply, err
	}
	const kept = 2
	if len(r.Files) <= kept {
		return reply, errkind.Errorf(errkind.Invalid, "%d descriptors", len(r.Files))
	}
	fds := make([]int, len(r.Files))
	for i, f := range r.Files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds[i] = int(fd) })
		}
		if err != nil {
			return reply, err
		}
	}
	var done sync.WaitGroup
	done.Add(1)
	k.jobs <- func() {
		reply, err = k.make(c, o, fds[:len(fds)-kept], fds[len(fds)-kept:])
		done.Done()
		k.spare.prepare()
	}
	done.Wait()
	return reply, err
}

// make makes the child and remembers it. It runs on the one thread that does.
func (k *keeper) make(c *fdrpc.Conn, o order, files, kept []int) (fdrpc.Reply, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.master != c || k.ending { // meanwhile
		return fdrpc.Reply{}, errNoMaster
	}
	o.Flags = k.spare.use(o.Flags)
	m := o.carryOut(files)
	if m.Errno != 0 {
		return fdrpc.Reply{Body: m}, nil
	}
	handle, err := unix.PidfdOpen(m.PID, unix.PIDFD_NONBLOCK)
	if err != nil { // nobody could supervise it
		_ = unix.Kill(m.PID, unix.SIGKILL)
		_, _ = unix.Wait4(m.PID, nil, 0, nil)
		return fdrpc.Reply{}, errkind.Errorf(errkind.Unavailable, "%w", os.NewSyscallError("pidfd_open", err))
	}
	m.ID = k.keep(o, m.PID, kept)
	return fdrpc.Reply{Body: m, Files: []*os.File{os.NewFile(uintptr(handle), "process")}}, nil
}

// carryOut makes the child.
func (o order) carryOut(files []int) (m made) {
	m.Born = len(o.Enter) > 0 && move(o.Enter) == nil
	p := plan{flags: o.Flags, ownUID: o.OwnUID}
	numbers := make([]uintptr, len(files))
	for i, fd := range files {
		numbers[i] = uintptr(fd)
	}
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", low), []string{o.Name},
		&syscall.ProcAttr{Dir: "/", Env: []string{}, Files: numbers, Sys: p.attributes(o.UID)})
	m.PID = pid
	if err != nil && !errors.As(err, &m.Errno) {
		m.Errno = unix.EIO
	}
	if len(o.Enter) > 0 {
		if err := move(o.Leave); err != nil {
			fmt.Fprintf(os.Stderr, "%s: leave the control groups of a VCM: %v\n", forkerName, err)
		}
	}
	return m
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
