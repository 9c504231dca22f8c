package sandbox

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// allowed are the system calls of a vcmd at work: the Go runtime, accepted
// connections, the store, the two sockets to its parents.
func allowed() []uint32 {
	return append([]uint32{
		// memory
		unix.SYS_BRK, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_MLOCK, unix.SYS_MUNLOCK, unix.SYS_MUNMAP,
		// threads, signals, time
		unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_FUTEX,
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETTIMEOFDAY, unix.SYS_NANOSLEEP,
		unix.SYS_RESTART_SYSCALL, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SCHED_GETAFFINITY,
		unix.SYS_SCHED_YIELD, unix.SYS_SET_ROBUST_LIST, unix.SYS_SIGALTSTACK,
		// files below the data directory, and descriptors
		unix.SYS_CLOSE, unix.SYS_DUP3, unix.SYS_FALLOCATE, unix.SYS_FCNTL, unix.SYS_FDATASYNC,
		unix.SYS_FLOCK, unix.SYS_FSTAT, unix.SYS_FSTATFS, unix.SYS_FSYNC, unix.SYS_FTRUNCATE,
		unix.SYS_GETDENTS64, unix.SYS_LSEEK, unix.SYS_NEWFSTATAT, unix.SYS_OPENAT, unix.SYS_PREAD64,
		unix.SYS_PWRITE64, unix.SYS_READ, unix.SYS_READV, unix.SYS_UNLINKAT,
		unix.SYS_WRITE, unix.SYS_WRITEV,
		// connections that others opened
		unix.SYS_ACCEPT4, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
		unix.SYS_GETPEERNAME, unix.SYS_GETSOCKNAME, unix.SYS_GETSOCKOPT, unix.SYS_PIPE2, unix.SYS_RECVFROM,
		unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_SENDTO, unix.SYS_SETSOCKOPT, unix.SYS_SHUTDOWN,
		// the rest
		unix.SYS_GETRANDOM, unix.SYS_GETRLIMIT, unix.SYS_GETRUSAGE,
		// Settle; they can only take rights away
		unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_RESTRICT_SELF,
	}, allowedHere()...)
}

// deadly are calls that nothing in a vcmd makes. Whoever makes one has taken it over.
func deadly() []uint32 {
	return append([]uint32{
		unix.SYS_ADD_KEY, unix.SYS_BIND, unix.SYS_BPF, unix.SYS_CHROOT, unix.SYS_CLONE3,
		unix.SYS_CONNECT, unix.SYS_DELETE_MODULE, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_FINIT_MODULE,
		unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSOPEN, unix.SYS_INIT_MODULE, unix.SYS_IO_URING_ENTER,
		unix.SYS_IO_URING_REGISTER, unix.SYS_IO_URING_SETUP, unix.SYS_KCMP, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_KEXEC_LOAD,
		unix.SYS_KEYCTL, unix.SYS_LISTEN, unix.SYS_MEMFD_CREATE, unix.SYS_MOUNT, unix.SYS_MOUNT_SETATTR,
		unix.SYS_MOVE_MOUNT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_OPEN_TREE, unix.SYS_PERF_EVENT_OPEN,
		unix.SYS_PERSONALITY, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_OPEN, unix.SYS_PIVOT_ROOT, unix.SYS_PROCESS_MADVISE,
		unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PTRACE, unix.SYS_QUOTACTL, unix.SYS_REBOOT,
		unix.SYS_REQUEST_KEY, unix.SYS_SETNS, unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_SWAPOFF,
		unix.SYS_SWAPON, unix.SYS_UMOUNT2, unix.SYS_UNSHARE, unix.SYS_USERFAULTFD,
	}, deadlyHere()...)
}

// namespaces are the flags of clone that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// guarded are calls that are allowed with certain arguments only. The first
// filter must let the second one be loaded.
func guarded() []rule {
	return append([]rule{
		// threads, not processes and not namespaces
		{unix.SYS_CLONE, [][]test{{{0, hasBit, unix.CLONE_THREAD}, {0, lacks, namespaceFlags}}}},
		// signals to itself: the runtime preempts its threads with them
		{unix.SYS_TGKILL, [][]test{{{0, equals, uint32(unix.Getpid())}}}},
		// no new code
		{unix.SYS_MMAP, [][]test{{{2, lacks, unix.PROT_EXEC}}}},
		{unix.SYS_MPROTECT, [][]test{{{2, lacks, unix.PROT_EXEC}}}},
		// limits are read, not set
		{unix.SYS_PRLIMIT64, [][]test{{{2, equals, 0}}}},
		// the first client has the threads use all processors, and timers be in time
		{unix.SYS_SCHED_SETAFFINITY, [][]test{{{0, equals, 0}}}},
		// the runtime names its mappings; the report asks for the filter's mode
		{unix.SYS_PRCTL, [][]test{{{0, equals, unix.PR_SET_VMA}}, {{0, equals, unix.PR_GET_SECCOMP}}, {{0, equals, unix.PR_SET_TIMERSLACK}}}},
		{unix.SYS_SECCOMP, [][]test{{{0, equals, unix.SECCOMP_SET_MODE_FILTER}}}},
	}, guardedHere()...)
}

// admission is the first filter: everything is refused but what a vcmd does.
func admission() policy {
	return policy{matched: answerAllow, otherwise: answerRefuse, rules: rules(allowed(), guarded()...)}
}

// sentence is the second one: some of what was refused is the end.
func sentence() policy {
	return policy{matched: answerKill, otherwise: answerAllow, rules: rules(append(deadly(), unix.SYS_SECCOMP))}
}

// filterSyscalls loads both filters and makes the attempts between them.
func (r *Report) filterSyscalls(filters func() int) {
	const wanted = "the calls of a vcmd at work only"
	if err := enforce(controlSyscalls, func() error { return enforceFilter(admission()) }); err != nil {
		r.add(controlSyscalls, wanted, Absent, err.Error(), "")
		r.add(controlKill, "forbidden calls end the process", Absent, "there is no filter", "")
		return
	}
	got, reason := Enforced, ""
	var proof []string
	end, ends := deadly(), 0
	for _, a := range syscallAttempts() {
		if slices.Contains(end, uint32(a.nr)) {
			ends++
		}
		e := a.try()
		proof = append(proof, a.name+" → "+outcome(e))
		if e != unix.EPERM {
			got, reason = Absent, a.name+" was not refused"
		}
	}
	r.add(controlSyscalls, wanted, got, reason, strings.Join(proof, "; "))
	r.killForbidden(filters, ends)
}

// killForbidden loads the second filter. That it is in force can only be seen
// from the number of filters: who tries it does not live to tell.
func (r *Report) killForbidden(filters func() int, attempts int) {
	const wanted = "forbidden calls end the process"
	before := filters()
	if err := enforce(controlKill, func() error { return enforceFilter(sentence()) }); err != nil {
		r.add(controlKill, wanted, Absent, err.Error(), "")
		return
	}
	after := filters()
	r.prove(controlKill, wanted, before >= 0 && after == before+1, "the filter is not in force",
		fmt.Sprintf("%d filters after %d before, and %d attempts that it now answers with the end of the process", after, before, attempts))
}

type syscallAttempt struct {
	name string
	nr   uintptr
	try  func() error
}

// syscallAttempts are calls that do no harm and answer something else than
// EPERM where no filter is in the way.
func syscallAttempts() []syscallAttempt {
	raw := func(name string, nr, a, b, c uintptr) syscallAttempt {
		return syscallAttempt{name, nr, func() error {
			if _, _, e := unix.Syscall(nr, a, b, c); e != 0 {
				return e
			}
			return nil
		}}
	}
	return []syscallAttempt{
		{"socket", unix.SYS_SOCKET, func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		}},
		raw("execve", unix.SYS_EXECVE, 0, 0, 0),                             // EFAULT
		raw("ptrace", unix.SYS_PTRACE, unix.PTRACE_PEEKDATA, 0x7ffffffe, 0), // ESRCH
		raw("keyctl", unix.SYS_KEYCTL, 0xffff, 0, 0),                        // EOPNOTSUPP
		raw("io_uring_setup", unix.SYS_IO_URING_SETUP, 1, 0, 0),             // EFAULT
		raw("process_vm_readv", unix.SYS_PROCESS_VM_READV, 0x7ffffffe, 0, 0),
		raw("clone3", unix.SYS_CLONE3, 0, 0, 0),                                          // EINVAL
		raw("clone of a process", unix.SYS_CLONE, unix.CLONE_SIGHAND, 0, 0),              // EINVAL
		raw("mmap of code", unix.SYS_MMAP, 0, 0, unix.PROT_READ|unix.PROT_EXEC),          // EINVAL: no length
		{"uname", unix.SYS_UNAME, func() error { return unix.Uname(new(unix.Utsname)) }}, // allowed
		raw("memfd_create", unix.SYS_MEMFD_CREATE, 0, 0, 0),                              // EFAULT
		raw("unshare", unix.SYS_UNSHARE, 0, 0, 0),                                        // allowed
		raw("kill of the parent", unix.SYS_KILL, uintptr(unix.Getppid()), 0, 0),          // allowed outside
		raw("prctl to become dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 2, 0),      // EINVAL: nobody may ask for that
		raw("setrlimit", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, 1),                     // EFAULT
		raw("placing another process", unix.SYS_SCHED_SETAFFINITY, 0x7ffffffe, 0, 0),     // ESRCH
		raw("mount", unix.SYS_MOUNT, 0, 0, 0),                                            // EFAULT or EPERM
		raw("bpf", unix.SYS_BPF, 0xffff, 0, 0),                                           // EINVAL or EPERM
	}
}

// filterCount returns a function that counts the filters in force, -1 where the
// kernel does not say; done closes what it reads.
func filterCount() (count func() int, done func()) {
	fd, err := unix.Open("/proc/self/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() int { return -1 }, func() {}
	}
	return func() int {
		var buf [8192]byte
		n, err := unix.Pread(fd, buf[:], 0)
		if err != nil {
			return -1
		}
		_, rest, found := bytes.Cut(buf[:n], []byte("\nSeccomp_filters:"))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		count, err := strconv.Atoi(string(bytes.TrimSpace(line)))
		if !found || err != nil {
			return -1
		}
		return count
	}, func() { _ = unix.Close(fd) }
}
