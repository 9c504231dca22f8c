package launch

import "golang.org/x/sys/unix"

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

// anchor keeps a thread to one processor, and with it the child that it makes. The
// child's runtime then begins with what one processor needs, and the child where
// nobody has to be woken up for it. It stays there until it has something to do, so
// children get the processors by turns.
type anchor struct {
	home unix.CPUSet // all processors of the thread; none before the first
	last int         // that a child was made on
}

func (p *anchor) drop() {
	if p.home.Count() == 0 && unix.SchedGetaffinity(0, &p.home) != nil {
		return // there would be no way back
	}
	p.last = nextProcessor(p.home, p.last)
	var one unix.CPUSet
	one.Set(p.last)
	_ = unix.SchedSetaffinity(0, &one) // or the child begins with more
}

// nextProcessor is the one of set after last; the first follows the last one.
func nextProcessor(set unix.CPUSet, last int) int {
	size := len(set) * 64
	for i := 1; i <= size; i++ {
		if next := (last + i) % size; set.IsSet(next) {
			return next
		}
	}
	return last
}

// weigh gives the thread all its processors back.
func (p *anchor) weigh() {
	if p.home.Count() > 0 {
		_ = unix.SchedSetaffinity(0, &p.home)
	}
}
