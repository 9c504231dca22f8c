package launch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// usable are the processors that the calling thread may use, 64 a word; none if
// that cannot be told.
func usable() (mask []uint64) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	words := 0
	for i, w := range set {
		if mask = append(mask, uint64(w)); w != 0 {
			words = i + 1
		}
	}
	return mask[:words]
}

// anchor keeps a thread to the processor that it runs on, and with it the child that
// it makes. The child's runtime then begins with what one processor needs, and the
// child where nobody has to be woken up for it.
type anchor struct{ home unix.CPUSet } // all processors of the thread; none before the first

func (p *anchor) drop() {
	var here uint32
	if p.home.Count() == 0 && unix.SchedGetaffinity(0, &p.home) != nil {
		return // there would be no way back
	}
	if _, _, e := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&here)), 0, 0); e != 0 {
		return
	}
	var one unix.CPUSet
	one.Set(int(here))
	_ = unix.SchedSetaffinity(0, &one) // or the child begins with more
}

// weigh gives the thread all its processors back.
func (p *anchor) weigh() {
	if p.home.Count() > 0 {
		_ = unix.SchedSetaffinity(0, &p.home)
	}
}
