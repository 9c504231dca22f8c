package sandbox

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capVersion is _LINUX_CAPABILITY_VERSION_3, two words of each set.
const capVersion = unix.LINUX_CAPABILITY_VERSION_3

// dropCapabilities empties every set of every thread and tries one that root
// would have.
func (r *Report) dropCapabilities() {
	const wanted = "none permitted, effective or inheritable"
	if err := enforce(controlCapabilities, emptyCapabilities); err != nil {
		r.add(controlCapabilities, wanted, Absent, err.Error(), "")
		return
	}
	left, err := capabilities()
	attempt := unix.Chroot("/") // harmless if it works
	proof := fmt.Sprintf("permitted and effective = %x, chroot → %s", left, outcome(attempt))
	r.prove(controlCapabilities, wanted, err == nil && left == 0 && attempt == unix.EPERM, "some are left", proof)
}

// emptyCapabilities leaves the bounding set alone: it only matters to execve,
// to which no_new_privs gives nothing and which the filter kills, and emptying
// it on every thread would be a third of a VCM's start.
func emptyCapabilities() error {
	header := unix.CapUserHeader{Version: capVersion}
	var none [2]unix.CapUserData
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if e != 0 {
		return fmt.Errorf("drop capabilities: %w", e)
	}
	return nil
}

// capabilities are those of the calling thread.
func capabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: capVersion}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return 0, err
	}
	low := sets[0].Permitted | sets[0].Effective | sets[0].Inheritable
	high := sets[1].Permitted | sets[1].Effective | sets[1].Inheritable
	return uint64(high)<<32 | uint64(low), nil
}

// forbidNewPrivileges makes set-uid programs and file capabilities powerless. A
// forker makes the process that way, and no thread of it can undo that.
func (r *Report) forbidNewPrivileges() {
	const wanted = "no program can give privileges back"
	err := enforce(controlNoNewPrivs, func() error {
		if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && n == 1 {
			return nil
		}
		if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
			return e
		}
		return nil
	})
	if err != nil {
		r.add(controlNoNewPrivs, wanted, Absent, err.Error(), "")
		return
	}
	n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	r.prove(controlNoNewPrivs, wanted, err == nil && n == 1, "it is not set", fmt.Sprintf("PR_GET_NO_NEW_PRIVS = %d", n))
}
