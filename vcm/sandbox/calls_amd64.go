package sandbox

import "golang.org/x/sys/unix"

// architecture is what the kernel calls this one in a filter. All that are
// listed keep the low half of a word first.
const architecture = uint32(unix.AUDIT_ARCH_X86_64)

// secondABI is from where on the numbers of calls are those of x32, with which
// a list of forbidden calls could be got round.
const secondABI = uint32(0x40000000)

// archSetFS is arch_prctl's code for a new thread's own storage.
const archSetFS = 0x1002

// allowedHere are calls of a vcmd at work that other architectures do not have.
func allowedHere() []uint32 {
	return []uint32{unix.SYS_EPOLL_WAIT, unix.SYS_RENAMEAT}
}

func deadlyHere() []uint32 { return []uint32{unix.SYS_IOPERM, unix.SYS_IOPL} }

func guardedHere() []rule {
	return []rule{{unix.SYS_ARCH_PRCTL, [][]test{{{0, equals, archSetFS}}}}}
}
