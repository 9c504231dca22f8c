//go:build hostile

package main

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// leak leaves one more descriptor open.
func leak(map[string]string) (string, error) {
	_, err := unix.FcntlInt(vcmcontrol.DataDirFD, unix.F_DUPFD_CLOEXEC, 0)
	return "", err
}

// crash ends the process as a defect would of which the runtime does not get hold:
// by a fault with the kernel's own action, which is to write a core file. The first
// process of a name space is spared by every signal but such a one.
func crash(map[string]string) (string, error) {
	var standard [32]byte // of sigaction(2): SIG_DFL, no flags, no mask
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&standard)), 0, 8, 0, 0); e != 0 {
		return "", e
	}
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return "", err
	}
	return string(m[:1]), errors.New("it lives on")
}
