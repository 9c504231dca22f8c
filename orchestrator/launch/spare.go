package launch

import "golang.org/x/sys/unix"

// spare is a network namespace that a thread is in before it makes a child,
// which is born there: making one takes longer than all the rest of a process,
// and nobody waits for it now. As a namespace of the forker's, it also is one
// in which the child has no privilege. Only root can have one.
type spare struct {
	ready bool
	home  int // descriptor of the forker's own; 0: not opened yet
}

// prepare takes the calling thread out of the last child's namespace, into one
// for the next child. Nothing the thread does needs a network.
func (s *spare) prepare() {
	if s.home == 0 {
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return // there would be no way back
		}
		s.home = home
	}
	s.ready = unix.Unshare(unix.CLONE_NEWNET) == nil
}

// use returns the flags without what the child gets by being born here. It gives
// the namespace away once: where no other was prepared, the kernel makes one. A
// child that is to have none is born in the forker's own.
func (s *spare) use(flags uintptr) uintptr {
	ready := s.ready
	s.ready = false
	switch wanted := flags&unix.CLONE_NEWNET != 0; {
	case wanted && ready:
		return flags &^ unix.CLONE_NEWNET
	case !wanted && s.home != 0: // also not in the last child's
		_ = unix.Setns(s.home, unix.CLONE_NEWNET) // who is root may
	}
	return flags
}
