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
	level  string // as root
	nobody string
	lacks  string // a line of the report that must say so
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
		{"user namespaces", clone(unix.CLONE_NEWUSER), "landlock", "landlock", user},
		{"network namespaces", clone(unix.CLONE_NEWNET), "landlock", "landlock", network},
		{"mount namespaces", clone(unix.CLONE_NEWNS), "landlock", "landlock", root},
		{"process namespaces", clone(unix.CLONE_NEWPID), "landlock", "landlock", pid},
		{"IPC namespaces", clone(unix.CLONE_NEWIPC), "landlock", "landlock", ipc},
		{"UTS namespaces", clone(unix.CLONE_NEWUTS), "landlock", "landlock", uts},
		{"pivot_root", []denied{{"pivot_root", 0, unix.EPERM}}, "landlock", "landlock", root},
		{"capset", []denied{{"capset", 0, unix.EPERM}}, "landlock", "landlock", capabilities},
		{"Landlock", []denied{{"landlock_create_ruleset", 0, unix.ENOSYS}}, "process", "process", landlock},
		{"seccomp", []denied{{"seccomp", 0, unix.ENOSYS}}, "process", "process", syscalls},
		{"memfd_secret", []denied{{"memfd_secret", 0, unix.ENOSYS}}, "rootless", "rootless", "secret-memory"},
	}
}

// Deny takes a feature from this process and becomes the given program.
func Deny(name string, program []string) error {
	all := features()
	i := slices.IndexFunc(all, func(f feature) bool { return f.name == name })
	if i < 0 || len(program) == 0 {
		return fmt.Errorf("deny FEATURE PROGRAM [ARGUMENT...]: no feature %q", name)
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
