package sandbox

import "golang.org/x/sys/unix"

// architecture is what the kernel calls this one in a filter. All that are
// listed keep the low half of a word first.
const architecture = uint32(unix.AUDIT_ARCH_AARCH64)

// secondABI is none: 32-bit programs have an architecture of their own.
const secondABI = uint32(0)

// allowedHere are calls of a vcmd at work that other architectures do not have.
func allowedHere() []uint32 { return []uint32{unix.SYS_RENAMEAT} }

func deadlyHere() []uint32 { return nil }

func guardedHere() []rule { return nil }
