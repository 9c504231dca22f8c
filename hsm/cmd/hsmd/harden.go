package main

import (
	"errors"
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// harden takes from the process what a unit never needs: core dumps, being
// looked into by others, sockets other than unix ones, and starting programs.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process not dumpable: %w", err)
	}
	if err := seccomp.LoadFilter(filter()); err != nil {
		return errkind.Errorf(errkind.Unavailable, "the kernel gives no seccomp filter, without which the unit would have a network: %w", err)
	}
	return prove()
}

func filter() seccomp.Filter {
	notUnix := seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_UNIX}}
	return seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{
				{
					Action: seccomp.ActionErrno,
					NamesWithCondtions: []seccomp.NameWithConditions{
						{Name: "socket", Conditions: notUnix},
					},
				},
				{
					Action: seccomp.ActionErrno,
					Names: []string{
						"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev",
						"bpf", "keyctl", "add_key", "request_key", "io_uring_setup", "perf_event_open",
						"mount", "umount2", "pivot_root", "unshare", "setns", "kexec_load", "init_module",
						"finit_module", "delete_module", "userfaultfd",
					},
				},
			},
		},
	}
}

// prove attempts what must not work any more: the filter's word is not enough.
func prove() error {
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || d != 0 {
		return errkind.Errorf(errkind.Internal, "the process is dumpable (%d, %v)", d, err)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK} {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		if !errors.Is(err, unix.EPERM) {
			return errkind.Errorf(errkind.Internal, "the unit could open a socket of family %d (%v); it must have no network", family, err)
		}
	}
	return nil
}
