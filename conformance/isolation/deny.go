package isolation

import (
	"fmt"
	"slices"
	"syscall"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// features of the kernel that can be taken from an orchestrator and its VCMs, and
// with which level the VCMs are left.
type feature struct {
	name   string
	denied []denied
	take   func() error // what is no system call is taken by this
	level  string       // as root
	nobody string       // "": nobody never has it
	lacks  string       // a line of the report that must say so
}

// denied is a system call that fails; with flags only where one of them is given.
type denied struct {
	call  string
	flags uint64
	errno syscall.Errno
}

func features() []feature {
	clone := func(flags uint64) []denied {
		return []denied{{"clone", flags, unix.EPERM}, {"unshare", flags, unix.EPERM}, {"clone3", 0, unix.ENOSYS}}
	}
	return []feature{
		{"user namespaces", clone(unix.CLONE_NEWUSER), nil, "landlock", "landlock", user},
		{"network namespaces", clone(unix.CLONE_NEWNET), nil, "landlock", "landlock", network},
		{"mount namespaces", clone(unix.CLONE_NEWNS), nil, "landlock", "landlock", root},
		{"process namespaces", clone(unix.CLONE_NEWPID), nil, "landlock", "landlock", pid},
		{"IPC namespaces", clone(unix.CLONE_NEWIPC), nil, "landlock", "landlock", ipc},
		{"UTS namespaces", clone(unix.CLONE_NEWUTS), nil, "landlock", "landlock", uts},
		{"pivot_root", []denied{{"pivot_root", 0, unix.EPERM}}, nil, "landlock", "landlock", root},
		{"capset", []denied{{"capset", 0, unix.EPERM}}, nil, "landlock", "landlock", capabilities},
		{"Landlock", []denied{{"landlock_create_ruleset", 0, unix.ENOSYS}}, nil, "process", "process", landlock},
		{"seccomp", []denied{{"seccomp", 0, unix.ENOSYS}}, nil, "process", "process", syscalls},
		{"memfd_secret", []denied{{"memfd_secret", 0, unix.ENOSYS}}, nil, "rootless", "rootless", "secret-memory"},
		{"control groups", nil, withoutGroups, "rootless", "", cgroup},
	}
}

// Deny takes a feature from this process and becomes the given program.
func Deny(name string, program []string) error {
	all := features()
	i := slices.IndexFunc(all, func(f feature) bool { return f.name == name })
	if i < 0 || len(program) == 0 {
		return fmt.Errorf("deny FEATURE PROGRAM [ARGUMENT...]: no feature %q", name)
	}
	if all[i].take != nil {
		if err := all[i].take(); err != nil {
			return err
		}
		return become(program)
	}
	p := seccomp.Policy{DefaultAction: seccomp.ActionAllow}
	for _, d := range all[i].denied {
		g := seccomp.SyscallGroup{Action: seccomp.ActionErrno | seccomp.Action(d.errno)}
		if d.flags == 0 {
			g.Names = []string{d.call}
		}
		for bit := uint64(1); bit != 0 && bit <= d.flags; bit <<= 1 {
			if d.flags&bit != 0 {
				g.NamesWithCondtions = append(g.NamesWithCondtions, seccomp.NameWithConditions{Name: d.call,
					Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: bit}}})
			}
		}
		p.Syscalls = append(p.Syscalls, g)
	}
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: p}); err != nil {
		return err
	}
	return become(program)
}

// withoutGroups takes every hierarchy of control groups out of what this process
// and its children see.
func withoutGroups() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	for _, dir := range hierarchies() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	return nil
}
