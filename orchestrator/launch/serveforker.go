package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forkerName is the forker's argv[0] and the name of its thread that makes
// children, which they have until they run the binary.
const forkerName = "vcm-forker"

// Descriptors of a forker.
const (
	forkerSocket = 3
	forkerBinary = 4
)

// ServeForker is the whole life of a forker; in any other process it does
// nothing. A program whose Config names it as Forker calls it first in main.
func ServeForker() {
	if len(os.Args) != 1 || os.Args[0] != forkerName {
		return
	}
	// The kernel counts a process's memory where its first thread is. That stays
	// in the orchestrator's control group; another one visits those of the VCMs.
	runtime.LockOSThread()
	over := make(chan error)
	go func() {
		runtime.LockOSThread()
		over <- takeOrders()
	}()
	if err := <-over; !errors.Is(err, errNoOrder) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", forkerName, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func takeOrders() error {
	name := [16]byte{}
	copy(name[:], forkerName)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return err
	}
	unix.CloseOnExec(forkerSocket)
	// Beyond all that children get; see pin.
	const far = 256
	binary, err := unix.FcntlInt(forkerBinary, unix.F_DUPFD_CLOEXEC, far)
	if err != nil {
		return err
	}
	if err := unix.Close(forkerBinary); err != nil {
		return err
	}
	for {
		o, files, err := receive()
		if err != nil {
			return err
		}
		m, err := o.carryOut(binary, files)
		for _, f := range files {
			_ = unix.Close(int(f))
		}
		p, marshalErr := json.Marshal(m)
		if err := errors.Join(err, marshalErr, unix.Sendto(forkerSocket, p, unix.MSG_NOSIGNAL, nil)); err != nil {
			return err
		}
	}
}

func receive() (o order, files []uintptr, err error) {
	const most = 64
	p, oob := make([]byte, maxOrder), make([]byte, unix.CmsgSpace(4*most))
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(forkerSocket, p, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err != nil:
		return o, nil, os.NewSyscallError("recvmsg", err)
	case n == 0:
		return o, nil, errNoOrder
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return o, nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return o, nil, err
		}
		for _, fd := range fds {
			files = append(files, uintptr(fd))
		}
	}
	return o, files, json.Unmarshal(p[:n], &o)
}

// carryOut makes the child. An error means that this process must not make another.
func (o order) carryOut(binary int, files []uintptr) (m made, err error) {
	m.Born = len(o.Enter) > 0 && move(o.Enter) == nil
	// The child's parent is the orchestrator, as this process's is.
	p := plan{flags: o.Flags | unix.CLONE_PARENT, ownUID: o.OwnUID}
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(binary), []string{o.Name},
		&syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: p.attributes(o.UID)})
	m.PID = pid
	if err != nil && !errors.As(err, &m.Errno) {
		m.Errno = unix.EIO
	}
	if len(o.Enter) > 0 {
		if err := move(o.Leave); err != nil {
			return m, fmt.Errorf("leave the control groups of a VCM: %w", err)
		}
	}
	return m, nil
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
