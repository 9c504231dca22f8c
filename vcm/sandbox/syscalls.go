package sandbox

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowed are the system calls of a vcmd at work: the Go runtime, accepted
// connections, the store, the two sockets to its parents. Names that an
// architecture does not have are passed over.
func allowed() []string {
	return []string{
		// memory
		"brk", "madvise", "mincore", "mlock", "munlock", "munmap",
		// threads, signals, time
		"clock_gettime", "clock_nanosleep", "exit", "exit_group", "futex", "getpid", "getppid", "gettid", "gettimeofday", "nanosleep",
		"restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "sigaltstack",
		// files below the data directory, and descriptors
		"close", "dup3", "fallocate", "fcntl", "fdatasync", "flock", "fstat", "fstatfs", "fsync", "ftruncate", "getdents64", "lseek",
		"newfstatat", "openat", "pread64", "pwrite64", "read", "readv", "renameat", "unlinkat", "write", "writev",
		// connections that others opened
		"accept4", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "getpeername", "getsockname", "getsockopt",
		"pipe2", "recvfrom", "recvmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
		// the rest
		"getrandom", "getrlimit", "getrusage",
		// Settle; they can only take rights away
		"landlock_create_ruleset", "landlock_restrict_self",
	}
}

// deadly are calls that nothing in a vcmd makes. Whoever makes one has taken it over.
func deadly() []string {
	return []string{
		"add_key", "bind", "bpf", "chroot", "clone3", "connect", "delete_module", "execve", "execveat", "finit_module", "fsconfig", "fsmount",
		"fsopen", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load",
		"kexec_load", "keyctl", "listen", "memfd_create", "mount", "mount_setattr", "move_mount", "name_to_handle_at", "open_by_handle_at",
		"open_tree", "perf_event_open", "personality", "pidfd_getfd", "pidfd_open", "pivot_root", "process_madvise", "process_vm_readv",
		"process_vm_writev", "ptrace", "quotactl", "reboot", "request_key", "setns", "socket", "socketpair", "swapoff", "swapon", "umount2",
		"unshare", "userfaultfd",
	}
}

// namespaces are the flags of clone that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// archSetFS is arch_prctl's code for a new thread's own storage on amd64.
const archSetFS = 0x1002

// known keeps the names that this architecture has.
func known(names []string) ([]string, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range names {
		if _, ok := info.SyscallNames[n]; ok {
			out = append(out, n)
		}
	}
	return out, nil
}

// condition is one test of an argument.
func condition(argument uint32, op seccomp.Operation, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: argument, Operation: op, Value: value}
}

// guarded are calls that are allowed with certain arguments only. The first
// filter must let the second one be loaded.
func guarded() []seccomp.NameWithConditions {
	out := []seccomp.NameWithConditions{
		// threads, not processes and not namespaces
		{Name: "clone", Conditions: seccomp.ArgumentConditions{condition(0, seccomp.BitsSet, unix.CLONE_THREAD), condition(0, seccomp.BitsNotSet, namespaceFlags)}},
		// signals to itself: the runtime preempts its threads with them
		{Name: "tgkill", Conditions: seccomp.ArgumentConditions{condition(0, seccomp.Equal, uint64(unix.Getpid()))}},
		// no new code
		{Name: "mmap", Conditions: seccomp.ArgumentConditions{condition(2, seccomp.BitsNotSet, unix.PROT_EXEC)}},
		{Name: "mprotect", Conditions: seccomp.ArgumentConditions{condition(2, seccomp.BitsNotSet, unix.PROT_EXEC)}},
		// limits are read, not set
		{Name: "prlimit64", Conditions: seccomp.ArgumentConditions{condition(2, seccomp.Equal, 0)}},
		// the runtime names its mappings; the report asks for the filter's mode
		{Name: "prctl", Conditions: seccomp.ArgumentConditions{condition(0, seccomp.Equal, unix.PR_SET_VMA)}},
		{Name: "prctl", Conditions: seccomp.ArgumentConditions{condition(0, seccomp.Equal, unix.PR_GET_SECCOMP)}},
		{Name: "seccomp", Conditions: seccomp.ArgumentConditions{condition(0, seccomp.Equal, unix.SECCOMP_SET_MODE_FILTER)}},
	}
	if runtime.GOARCH == "amd64" {
		out = append(out, seccomp.NameWithConditions{Name: "arch_prctl", Conditions: seccomp.ArgumentConditions{condition(0, seccomp.Equal, archSetFS)}})
	}
	return out
}

// errnoEPERM answers EPERM: the library adds the number to this action.
const errnoEPERM = seccomp.ActionErrno

func load(p seccomp.Policy) error {
	return seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: p})
}

// filterSyscalls loads both filters and makes the attempts between them.
func (r *Report) filterSyscalls(filters func() int) {
	const wanted = "the calls of a vcmd at work only"
	names, err := known(allowed())
	if err == nil {
		err = enforce(controlSyscalls, func() error {
			return load(seccomp.Policy{DefaultAction: errnoEPERM, Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: guarded()},
			}})
		})
	}
	if err != nil {
		r.add(controlSyscalls, wanted, Absent, err.Error(), "")
		r.add(controlKill, "forbidden calls end the process", Absent, "there is no filter", "")
		return
	}
	got, reason := Enforced, ""
	var proof []string
	for _, a := range syscallAttempts() {
		e := a.try()
		proof = append(proof, a.name+" → "+outcome(e))
		if e != unix.EPERM {
			got, reason = Absent, a.name+" was not refused"
		}
	}
	r.add(controlSyscalls, wanted, got, reason, strings.Join(proof, "; "))
	r.killForbidden(filters, len(proof))
}

// killForbidden loads the second filter. That it is in force can only be seen
// from the number of filters: who tries it does not live to tell.
func (r *Report) killForbidden(filters func() int, attempts int) {
	const wanted = "forbidden calls end the process"
	names, err := known(append(deadly(), "seccomp"))
	before := filters()
	if err == nil {
		err = enforce(controlKill, func() error {
			return load(seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionKillProcess, Names: names},
			}})
		})
	}
	if err != nil {
		r.add(controlKill, wanted, Absent, err.Error(), "")
		return
	}
	after := filters()
	r.prove(controlKill, wanted, before >= 0 && after == before+1, "the filter is not in force",
		fmt.Sprintf("%d filters after %d before, and %d attempts that it now answers with the end of the process", after, before, attempts))
}

type syscallAttempt struct {
	name string
	try  func() error
}

// syscallAttempts are calls that do no harm and answer something else than
// EPERM where no filter is in the way.
func syscallAttempts() []syscallAttempt {
	raw := func(nr, a, b, c uintptr) func() error {
		return func() error {
			if _, _, e := unix.Syscall(nr, a, b, c); e != 0 {
				return e
			}
			return nil
		}
	}
	return []syscallAttempt{
		{"socket", func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		}},
		{"execve", raw(unix.SYS_EXECVE, 0, 0, 0)},                             // EFAULT
		{"ptrace", raw(unix.SYS_PTRACE, unix.PTRACE_PEEKDATA, 0x7ffffffe, 0)}, // ESRCH
		{"keyctl", raw(unix.SYS_KEYCTL, 0xffff, 0, 0)},                        // EOPNOTSUPP
		{"io_uring_setup", raw(unix.SYS_IO_URING_SETUP, 1, 0, 0)},             // EFAULT
		{"process_vm_readv", raw(unix.SYS_PROCESS_VM_READV, 0x7ffffffe, 0, 0)},
		{"clone3", raw(unix.SYS_CLONE3, 0, 0, 0)},                                     // EINVAL
		{"clone of a process", raw(unix.SYS_CLONE, unix.CLONE_SIGHAND, 0, 0)},         // EINVAL
		{"mmap of code", raw(unix.SYS_MMAP, 0, 0, unix.PROT_READ|unix.PROT_EXEC)},     // EINVAL: no length
		{"uname", func() error { return unix.Uname(new(unix.Utsname)) }},              // allowed
		{"memfd_create", raw(unix.SYS_MEMFD_CREATE, 0, 0, 0)},                         // EFAULT
		{"unshare", raw(unix.SYS_UNSHARE, 0, 0, 0)},                                   // allowed
		{"kill of the parent", raw(unix.SYS_KILL, uintptr(unix.Getppid()), 0, 0)},     // allowed outside
		{"prctl to become dumpable", raw(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 2, 0)}, // EINVAL: nobody may ask for that
		{"setrlimit", raw(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, 1)},                // EFAULT
		{"mount", raw(unix.SYS_MOUNT, 0, 0, 0)},                                       // EFAULT or EPERM
		{"bpf", raw(unix.SYS_BPF, 0xffff, 0, 0)},                                      // EINVAL or EPERM
	}
}

// filterCount returns a function that counts the filters in force, -1 where the
// kernel does not say; done closes what it reads.
func filterCount() (count func() int, done func()) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return func() int { return -1 }, func() {}
	}
	return func() int {
		var buf [8192]byte
		n, _ := f.ReadAt(buf[:], 0) // EOF is expected
		_, rest, found := strings.Cut(string(buf[:n]), "\nSeccomp_filters:")
		line, _, _ := strings.Cut(rest, "\n")
		count, err := strconv.Atoi(strings.TrimSpace(line))
		if !found || err != nil {
			return -1
		}
		return count
	}, func() { _ = f.Close() }
}
