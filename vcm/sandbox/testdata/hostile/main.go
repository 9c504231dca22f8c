// As in vcmd; see the package comment of sandbox.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command hostile enters the sandbox as vcmd does, or not, and then attacks.
// It prints how the attack ended; a killed process prints nothing.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/sandbox"
)

func main() {
	attack, mode := os.Args[1], os.Args[2]
	if mode != "free" {
		door, err := sandbox.Begin()
		check(err)
		cfg := sandbox.Config{
			DataDir: os.NewFile(vcmcontrol.DataDirFD, "data"), Listeners: []int{vcmcontrol.FirstListenerFD}, DiskQuota: 16 << 20,
			Isolation: vcmcontrol.Isolation{Floor: sandbox.Process},
		}
		if mode == "namespaces" {
			cfg.Isolation.Namespaces = []string{"user", "mnt", "pid", "net", "ipc", "uts"}
		}
		_, err = door.Enter(cfg)
		check(err)
		report, err := door.Settle(cfg.DataDir)
		check(err)
		if attack == "report" {
			if door.Memory() <= 0 {
				check(errors.New("no memory in use"))
			}
			check(json.NewEncoder(os.Stdout).Encode(report))
			return
		}
	}
	fmt.Println(outcome(attacks()[attack]()))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func outcome(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "allowed"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	default:
		return err.Error()
	}
}

func attacks() map[string]func() error {
	return map[string]func() error{
		"none":   func() error { return nil },
		"socket": func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err },
		"ptrace": func() error { return unix.PtraceAttach(os.Getppid()) },
		"mount":  func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") },
		"exec":   func() error { return unix.Exec("/proc/self/exe", []string{"hostile", "none", "free"}, nil) },
		"fork":   func() error { return exec.Command("/proc/self/exe", "none", "free").Run() },
		"keyctl": func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err },
		"passwd": func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"environ of the parent": func() error {
			_, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", os.Getppid()))
			return err
		},
		"climb": func() error {
			fd, err := unix.Openat(vcmcontrol.DataDirFD, strings.Repeat("../", 20)+"etc/passwd", unix.O_RDONLY, 0)
			_ = unix.Close(fd)
			return err
		},
		"make a file": func() error {
			fd, err := unix.Openat(vcmcontrol.DataDirFD, "more", unix.O_CREAT|unix.O_WRONLY, 0o600)
			_ = unix.Close(fd)
			return err
		},
		"write outside": func() error { return os.WriteFile("/tmp/hostile-was-here", nil, 0o600) },
		"signal":        func() error { return unix.Kill(os.Getppid(), 0) },
		"new code": func() error {
			m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				return err
			}
			return unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
		},
		"become dumpable": func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
		"raise a limit": func() error {
			return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
		},
		"another filter": func() error {
			program := []unix.SockFilter{{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}}
			f := unix.SockFprog{Len: 1, Filter: &program[0]}
			_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			_, _, e := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&f)))
			if e != 0 {
				return e
			}
			return nil
		},
	}
}
