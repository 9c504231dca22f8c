package launch

import "golang.org/x/sys/unix"

// spare is a network namespace that a thread is in before it makes a child,
// which is born there: making one takes longer than all the rest of a process,
// and nobody waits for it now. As a namespace of the forker's, it also is one
// in which the child has no privilege. Only root can have one.
type spare struct{ ready bool }

// prepare takes the calling thread out of the last child's namespace, into one
// for the next child. Nothing the thread does needs a network.
func (s *spare) prepare() { s.ready = unix.Unshare(unix.CLONE_NEWNET) == nil }

// use returns the flags without what the child gets by being born here. It gives
// the namespace away once: where no other was prepared, the kernel makes one.
func (s *spare) use(flags uintptr) uintptr {
	if s.ready && flags&unix.CLONE_NEWNET != 0 {
		s.ready = false
		return flags &^ unix.CLONE_NEWNET
	}
	return flags
}
