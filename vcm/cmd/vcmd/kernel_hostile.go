//go:build hostile

package main

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fork makes a process, which ends at once.
func fork(flags uintptr) error {
	pid, _, e := rawFork(flags)
	if e != 0 {
		return e
	}
	return exitStatus(int(pid))
}

//go:norace
//go:noinline
func rawFork(flags uintptr) (pid, r2 uintptr, e syscall.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, r2, e = syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e == 0 && pid == 0 {
		for {
			_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return pid, r2, e
}

// ownProgram executes a program that it has brought along. It is an empty one:
// who may execute it is told that it has no format.
func ownProgram(map[string]string) (string, error) {
	fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, 0o700); err != nil {
		return "", err
	}
	if _, err := unix.Write(fd, []byte("nothing")); err != nil {
		return "", err
	}
	path, _ := unix.BytePtrFromString("")
	argv := []*byte{nil}
	_, _, e := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&argv[0])), unix.AT_EMPTY_PATH, 0)
	if e == unix.ENOEXEC {
		return "", nil
	}
	return "", e
}

func newCode(map[string]string) (string, error) {
	m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(m)
	return "", unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
}

func raiseLimit(map[string]string) (string, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &l); err != nil {
		return "", err
	}
	return "", unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: l.Max, Max: l.Max})
}

func ioUring(map[string]string) (string, error) {
	var params [120]byte
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if e != 0 {
		return "", e
	}
	return "", unix.Close(int(fd))
}

// loadBPF makes a map, the least that needs the right to.
func loadBPF(map[string]string) (string, error) {
	attr := struct{ kind, key, value, entries, flags uint32 }{2, 4, 4, 1, 0}
	fd, _, e := unix.Syscall(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if e != 0 {
		return "", e
	}
	return "", unix.Close(int(fd))
}

func anotherFilter(map[string]string) (string, error) {
	return "", onThread(func() error {
		program := []unix.SockFilter{{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}}
		f := unix.SockFprog{Len: 1, Filter: &program[0]}
		_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&f))); e != 0 {
			return e
		}
		return nil
	})
}
