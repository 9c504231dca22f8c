package launch

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newborn makes processes in user namespaces without a copy of the forker.
//
// The runtime makes a process in the memory of its parent, which stands still until
// the process runs its program; but one whose identity is to be mapped has to wait
// for its parent, and gets a copy. To make it, to throw it away, and the faults of
// whoever writes to a page meanwhile were half of a forker's work. This process is in
// the forker's memory, too, but beside it: it runs no Go, only a list of system calls
// that was written before, on a stack of its own, with all signals blocked and none
// handled. The last of them runs the program.
//
// All that it looks at is in here, on the heap, where nothing moves.
type newborn struct {
	missing bool // the kernel does not do it

	args   cloneArgs
	calls  []call
	failed uint32 // why the process could not do what it should
	busy   uint32 // cleared by the kernel when the process runs its program, or ends
	mask   uint64 // of signals
	heard  byte
	root   [2]byte
	empty  [1]byte
	argv   [2]*byte
	envp   [1]*byte
	stack  [256]uint64
}

// call is a system call of a process that was just made.
type call struct {
	number uintptr
	args   [5]uintptr
	least  uintptr // a smaller result is a failure
}

// cloneArgs is what clone3 reads, as long as its first version.
type cloneArgs struct {
	flags      uint64
	_          uint64 // for a descriptor of the process
	childTID   uint64
	_          uint64 // for its number
	exitSignal uint64
	stack      uint64
	stackSize  uint64
	_          uint64 // storage of its thread
}

// clearHandlers has the process handle no signals.
const clearHandlers = 0x100000000

// suits reports whether a process can be made so: in a user namespace, from
// descriptors that are not among the numbers that it gets.
func (n *newborn) suits(o order, files []int) bool {
	if n.missing || o.Flags&unix.CLONE_NEWUSER == 0 {
		return false
	}
	for _, fd := range files {
		if fd <= low {
			return false
		}
	}
	return len(files) <= low
}

// make makes a process that runs the binary, which is at the number low, with files
// as its first descriptors. The goroutine is locked to the thread. With ENOSYS
// the runtime has to.
func (n *newborn) make(o order, files []int) (pid int, err error) {
	var gate [2]int
	if err := unix.Pipe2(gate[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(gate[0])
	defer unix.Close(gate[1])
	if n.argv[0], err = syscall.BytePtrFromString(o.Name); err != nil {
		return 0, err
	}
	n.write(o, files, gate)
	pid, err = n.clone(o.Flags)
	if n.missing = err == unix.ENOSYS || err == unix.EINVAL; n.missing {
		return 0, unix.ENOSYS
	}
	if err != nil {
		return 0, err
	}
	if err = o.mapIdentity(pid); err == nil {
		_, err = unix.Write(gate[1], []byte{0})
	}
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	n.await()
	if err == nil && n.failed != 0 {
		err = syscall.Errno(n.failed)
	}
	if err != nil {
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	return pid, err
}

// write lists what the process does.
func (n *newborn) write(o order, files []int, gate [2]int) {
	n.calls, n.failed, n.root[0] = n.calls[:0], 0, '/'
	n.add(unix.SYS_CLOSE, uintptr(gate[1])) // or it would not notice our end
	n.add(unix.SYS_READ, uintptr(gate[0]), address(&n.heard), 1)
	n.calls[len(n.calls)-1].least = 1
	n.add(unix.SYS_SETSID)
	if o.OwnUID {
		n.add(unix.SYS_SETGROUPS, 0, 0)
	}
	n.add(unix.SYS_SETGID, 0) // root of the namespace
	n.add(unix.SYS_SETUID, 0)
	n.add(unix.SYS_CHDIR, address(&n.root[0]))
	n.add(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
	if o.NoNewPrivs {
		n.add(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	for to, fd := range files {
		n.add(unix.SYS_DUP3, uintptr(fd), uintptr(to), 0)
	}
	const size = unsafe.Sizeof(n.mask)
	n.add(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, address(&n.mask), 0, size)
	n.add(unix.SYS_EXECVEAT, low, address(&n.empty[0]), address(&n.argv[0]), address(&n.envp[0]), unix.AT_EMPTY_PATH)
}

func (n *newborn) add(number uintptr, args ...uintptr) {
	c := call{number: number}
	copy(c.args[:], args)
	n.calls = append(n.calls, c)
}

// address is where something is that does not move: a part of a newborn.
func address[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// clone makes the process.
func (n *newborn) clone(flags uintptr) (pid int, err error) {
	n.busy = 1
	n.args = cloneArgs{
		flags:      uint64(flags) | unix.CLONE_VM | unix.CLONE_CHILD_CLEARTID | clearHandlers,
		childTID:   uint64(address(&n.busy)),
		exitSignal: uint64(unix.SIGCHLD),
		stack:      uint64(address(&n.stack[0])),
		stackSize:  uint64(unsafe.Sizeof(n.stack)),
	}
	all := ^uint64(0)
	const size = unsafe.Sizeof(all)
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), address(&n.mask), size, 0, 0); e != 0 {
		return 0, e
	}
	got := clone3(&n.args, unsafe.Sizeof(n.args), &n.calls[0], uintptr(len(n.calls)), &n.failed)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, address(&n.mask), 0, size, 0, 0)
	if e := -int(got); e > 0 {
		return 0, syscall.Errno(e)
	}
	return int(got), nil
}

// await returns when the process is out of our memory.
func (n *newborn) await() {
	const wait = 0 // FUTEX_WAIT, not the private one: the kernel does not wake that
	for atomic.LoadUint32(&n.busy) != 0 {
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, address(&n.busy), wait, 1, 0, 0, 0)
	}
	runtime.KeepAlive(n)
}

// mapIdentity tells the kernel who the process is on the host.
func (o order) mapIdentity(pid int) error {
	uid, gid, groups := o.UID, o.UID, "allow"
	if !o.OwnUID {
		uid, gid, groups = os.Geteuid(), os.Getegid(), "deny"
	}
	for _, f := range []struct{ name, text string }{
		{"setgroups", groups}, {"gid_map", fmt.Sprintf("0 %d 1\n", gid)}, {"uid_map", fmt.Sprintf("0 %d 1\n", uid)},
	} {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/%s", pid, f.name), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, []byte(f.text))
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
