package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// census is what the process was given.
type census struct {
	listeners []int
	own       int // descriptors of the Go runtime
}

func (c census) String() string {
	s := fmt.Sprintf("0-2, control, device, data, %d listeners; nothing else is open", len(c.listeners))
	if c.own > 0 {
		s += fmt.Sprintf(" but %d pollers of the runtime", c.own)
	}
	return s
}

// scanned is how many descriptors are tried where /proc does not list them.
const scanned = 4096

// takeCensus checks every open descriptor against the declared order: standard
// streams, control socket, device channel, data directory, listeners.
func takeCensus() (c census, err error) {
	fds, err := openDescriptors()
	if err != nil {
		return census{}, err
	}
	for _, want := range []int{vcmcontrol.ControlFD, vcmcontrol.DeviceFD, vcmcontrol.DataDirFD} {
		if !slices.Contains(fds, want) {
			return census{}, errkind.Errorf(errkind.Invalid, "descriptor %d is missing: vcmd is started by orchestratord only", want)
		}
	}
	for _, fd := range fds {
		switch {
		case runtimeOwn(fd):
			c.own++
		case fd == vcmcontrol.ControlFD || fd == vcmcontrol.DeviceFD:
			if !isPacketSocket(fd) {
				err = wrongDescriptor(fd, "a local packet socket")
			}
		case fd == vcmcontrol.DataDirFD:
			if !isKind(fd, unix.S_IFDIR) {
				err = wrongDescriptor(fd, "the data directory")
			}
		case fd >= vcmcontrol.FirstListenerFD:
			if !isListener(fd) {
				err = wrongDescriptor(fd, "a listener")
			}
			c.listeners = append(c.listeners, fd)
		case isKind(fd, unix.S_IFDIR): // a standard stream that leads into the file system
			err = wrongDescriptor(fd, "a standard stream")
		}
		if err != nil {
			return census{}, err
		}
	}
	return c, nil
}

func wrongDescriptor(fd int, wanted string) error {
	return errkind.Errorf(errkind.Integrity, "descriptor %d is %s instead of %s: it was inherited by mistake", fd, describe(fd), wanted)
}

// matches compares with the listeners that the orchestrator declares.
func (c census) matches(declared []int) error {
	a, b := slices.Clone(c.listeners), slices.Clone(declared)
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) {
		return errkind.Errorf(errkind.Integrity, "the listeners %v were inherited, but %v are declared", a, b)
	}
	return nil
}

// openDescriptors lists the open descriptors.
func openDescriptors() (fds []int, err error) {
	dir, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return scanDescriptors(), nil
	}
	defer unix.Close(dir)
	var names []string
	for buf := make([]byte, 2048); ; {
		n, err := unix.Getdents(dir, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, errkind.Errorf(errkind.Internal, "list descriptors: %w", err)
		case n == 0:
			for _, name := range names {
				if fd, err := strconv.Atoi(name); err == nil && fd != dir {
					fds = append(fds, fd)
				}
			}
			slices.Sort(fds)
			return fds, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func scanDescriptors() (fds []int) {
	for fd := range scanned {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// describe names what fd leads to, without its path's contents.
func describe(fd int) string {
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "something unknown"
	}
	return link
}

// runtimeOwn reports whether fd is the network poller's. Only what is not of the
// file system has no kind, so that most descriptors need not be looked up.
func runtimeOwn(fd int) bool {
	if !isKind(fd, 0) {
		return false
	}
	link := describe(fd)
	return strings.HasPrefix(link, "anon_inode:[eventpoll]") || strings.HasPrefix(link, "anon_inode:[eventfd]")
}

func isKind(fd int, kind uint32) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == kind
}

func isPacketSocket(fd int) bool {
	domain, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err1 == nil && err2 == nil && domain == unix.AF_UNIX && kind == unix.SOCK_SEQPACKET
}

func isListener(fd int) bool {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && listening == 1
}

// readFile is os.ReadFile for small files of the kernel, without the calls that
// find out what else could be done with them.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	p := make([]byte, 0, 2048)
	for {
		n, err := unix.Read(fd, p[len(p):cap(p)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return p, nil
		default:
			if p = p[:len(p)+n]; len(p) == cap(p) {
				p = slices.Grow(p, len(p))
			}
		}
	}
}
