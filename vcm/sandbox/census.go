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
func openDescriptors() ([]int, error) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return scanDescriptors(), nil
	}
	own := int(dir.Fd())
	names, err := dir.Readdirnames(-1)
	if closeErr := dir.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "list descriptors: %w", err)
	}
	var fds []int
	for _, n := range names {
		if fd, err := strconv.Atoi(n); err == nil && fd != own {
			fds = append(fds, fd)
		}
	}
	slices.Sort(fds)
	return fds, nil
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

// runtimeOwn reports whether fd is the network poller's.
func runtimeOwn(fd int) bool {
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
