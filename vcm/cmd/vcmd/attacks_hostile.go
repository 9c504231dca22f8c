//go:build hostile

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// attacks are what a VCM does that was taken over. Each leaves the host as it was.
var attacks = map[string]func(map[string]string) (string, error){
	// the neighbour
	"read-file":    func(a map[string]string) (string, error) { return read(filepath.Join(a["dir"], "store.log")) },
	"read-environ": func(a map[string]string) (string, error) { return readProc(a["pid"], "environ") },
	"read-cmdline": func(a map[string]string) (string, error) { return readProc(a["pid"], "cmdline") },
	"read-memory":  readMemory,
	"ptrace":       attach,
	"vm-read":      vmRead,
	"signal":       func(a map[string]string) (string, error) { return "", unix.Kill(number(a["pid"]), 0) },
	"pidfd": func(a map[string]string) (string, error) {
		fd, err := unix.PidfdOpen(number(a["pid"]), 0)
		return "", closed(fd, err)
	},
	"connect":       func(a map[string]string) (string, error) { return "", connectTCP(a["address"]) },
	"abstract":      func(a map[string]string) (string, error) { return "", connectUnix("@" + a["abstract"]) },
	"shared-memory": sharedMemory,
	// the host
	"read-passwd": func(map[string]string) (string, error) { return read("/etc/passwd") },
	"read-state":  func(a map[string]string) (string, error) { return read(a["unit"]) },
	"climb":       climb,
	"list-root": func(map[string]string) (string, error) {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		return "", closed(fd, err)
	},
	"write-outside":  writeOutside,
	"make-file":      makeFile,
	"open-by-handle": openByHandle,
	"device-node":    deviceNode,
	"mount":          mountData,
	"hsm-socket":     func(a map[string]string) (string, error) { return "", connectUnix(a["hsm"]) },
	"signal-host":    func(a map[string]string) (string, error) { return "", unix.Kill(number(a["orchestrator"]), 0) },
	"connect-host":   func(a map[string]string) (string, error) { return "", connectTCP(a["platform"]) },
	"bind":           bindTCP,
	"raw-socket": func(map[string]string) (string, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		return "", closed(fd, err)
	},
	"domain-name":  func(a map[string]string) (string, error) { return "", unix.Setdomainname([]byte(a["domain"])) },
	"chroot":       func(map[string]string) (string, error) { return "", unix.Chroot("/") },
	"set-uid":      setUID,
	"become-other": becomeOther,
	// the kernel
	"fork":           func(map[string]string) (string, error) { return "", fork(0) },
	"user-namespace": func(map[string]string) (string, error) { return "", fork(unix.CLONE_NEWUSER) },
	"own-program":    ownProgram,
	"new-code":       newCode,
	"dumpable":       func(map[string]string) (string, error) { return "", unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
	"raise-limit":    raiseLimit,
	"keyring": func(map[string]string) (string, error) {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
		return "", err
	},
	"io-uring":       ioUring,
	"bpf":            loadBPF,
	"another-filter": anotherFilter,
	// resources
	"big-file":   bigFile,
	"fill-store": fillStore,
	"many-files": manyFiles,
	"memory":     takeMemory,
	"fork-bomb":  forkBomb,
	"threads":    threads,
}

func number(s string) int { n, _ := strconv.Atoi(s); return n }

func readProc(pid, file string) (string, error) { return read("/proc/" + pid + "/" + file) }

func readMemory(a map[string]string) (string, error) {
	maps, err := os.Open("/proc/" + a["pid"] + "/maps")
	if err != nil {
		return "", err
	}
	defer maps.Close()
	line, err := bufio.NewReader(maps).ReadString('\n')
	if err != nil {
		return "", err
	}
	at, err := strconv.ParseInt(line[:strings.IndexByte(line, '-')], 16, 64)
	if err != nil {
		return "", err
	}
	mem, err := os.Open("/proc/" + a["pid"] + "/mem")
	if err != nil {
		return "", err
	}
	defer mem.Close()
	_, err = mem.ReadAt(make([]byte, 64), at)
	return "", err
}

// attach becomes the neighbour's debugger for a moment: it ends with the thread.
func attach(a map[string]string) (string, error) {
	return "", onThread(func() error {
		_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(number(a["pid"])), 0, 0, 0, 0)
		if e != 0 {
			return e
		}
		return nil
	})
}

func vmRead(a map[string]string) (string, error) {
	buf := make([]byte, 16)
	local := []unix.Iovec{{Base: &buf[0], Len: 16}}
	// The program is not position-independent: every vcmd has its text here.
	_, err := unix.ProcessVMReadv(number(a["pid"]), local, []unix.RemoteIovec{{Base: 0x401000, Len: 16}}, 0)
	return "", err
}

func connectTCP(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
}

func bindTCP(a map[string]string) (string, error) {
	ap, err := netip.ParseAddrPort(a["address"])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	// It listens for a moment longer than the answer takes to arrive.
	defer time.AfterFunc(time.Second, func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: ap.Addr().As4()}); err != nil {
		return "", err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return "", err
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:%d", ap.Addr(), at.(*unix.SockaddrInet4).Port), nil
}

func connectUnix(name string) error {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		_ = unix.Close(fd)
		if err != unix.EPROTOTYPE {
			return err
		}
	}
	return unix.EPROTOTYPE
}

// sharedMemory looks for a segment of System V that the host has made.
func sharedMemory(a map[string]string) (string, error) {
	id, _, e := unix.Syscall(unix.SYS_SHMGET, uintptr(number(a["shm"])), 0, 0)
	if e != 0 {
		return "", e
	}
	at, _, e := unix.Syscall(unix.SYS_SHMAT, id, 0, unix.SHM_RDONLY)
	if e != 0 {
		return "", e
	}
	_, _, e = unix.Syscall(unix.SYS_SHMDT, at, 0, 0)
	if e != 0 {
		return "", e
	}
	return "", nil
}

func climb(map[string]string) (string, error) {
	fd, err := unix.Openat(vcmcontrol.DataDirFD, strings.Repeat("../", 20)+"etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return "", closed(fd, err)
}

func writeOutside(map[string]string) (string, error) {
	var last error
	for _, dir := range []string{"/tmp", "/dev/shm", "/var/tmp", "/"} {
		name := filepath.Join(dir, fmt.Sprintf("taken-over-%x", rand.Uint64()))
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err == nil {
			_ = unix.Close(fd)
			return name, unix.Unlink(name)
		}
		last = err
	}
	return "", last
}

func makeFile(map[string]string) (string, error) {
	name := fmt.Sprintf("more-%x", rand.Uint64())
	fd, err := unix.Openat(vcmcontrol.DataDirFD, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil {
		_ = unix.Unlinkat(vcmcontrol.DataDirFD, name, 0)
	}
	return "", closed(fd, err)
}

// openByHandle asks the file system of the data directory for its root by number.
func openByHandle(map[string]string) (string, error) {
	h, _, err := unix.NameToHandleAt(vcmcontrol.DataDirFD, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return "", err
	}
	own := h.Bytes()
	for inode := uint64(2); inode <= 128; inode += 126 { // of ext4, of xfs
		b := make([]byte, len(own))
		binary.NativeEndian.PutUint32(b, uint32(inode))
		fd, err := unix.OpenByHandleAt(vcmcontrol.DataDirFD, unix.NewFileHandle(h.Type(), b), unix.O_RDONLY|unix.O_CLOEXEC)
		if err == nil {
			return "", closed(fd, nil)
		}
		if err != unix.ESTALE {
			return "", err
		}
	}
	// Its own handle at least: the right to use one is what matters.
	fd, err := unix.OpenByHandleAt(vcmcontrol.DataDirFD, h, unix.O_RDONLY|unix.O_CLOEXEC)
	return "", closed(fd, err)
}

// deviceNode makes a node for the memory device and opens it.
func deviceNode(map[string]string) (string, error) {
	const name = ".device"
	if err := unix.Mknodat(vcmcontrol.DataDirFD, name, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err != nil { // as /dev/zero
		return "", err
	}
	defer unix.Unlinkat(vcmcontrol.DataDirFD, name, 0)
	fd, err := unix.Openat(vcmcontrol.DataDirFD, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return "", closed(fd, err)
}

// mountData mounts something on a folder of its own.
func mountData(a map[string]string) (string, error) {
	last := error(unix.ENOENT)
	for _, dir := range []string{"/data", a["own"]} {
		point := filepath.Join(dir, "m")
		if err := unix.Mkdir(point, 0o700); err != nil && err != unix.EEXIST {
			if last == unix.ENOENT {
				last = err
			}
			continue
		}
		err := unix.Mount("tmpfs", point, "tmpfs", 0, "size=4k")
		if err == nil {
			_ = unix.Unmount(point, unix.MNT_DETACH)
		}
		_ = unix.Rmdir(point)
		return "", err
	}
	return "", last
}

func becomeOther(map[string]string) (string, error) {
	return "", onThread(func() error {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65533, 65533, ^uintptr(0)); e != 0 {
			return e
		}
		return nil
	})
}

// setUID runs a program that belongs to root and has the right to be it.
func setUID(a map[string]string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	pid, err := syscall.ForkExec(a["setuid"], []string{"cat", a["secret"]}, &syscall.ProcAttr{Files: []uintptr{2, w.Fd(), 2}})
	_ = w.Close()
	if err != nil {
		return "", err
	}
	var buf [16]byte
	n, _ := r.Read(buf[:])
	if err := exitStatus(pid); err != nil || n == 0 {
		return "", errors.Join(err, unix.EACCES)
	}
	return string(buf[:n]), nil
}

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
