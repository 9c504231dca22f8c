//go:build hostile

package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// withheld are the layers that a hostile build leaves out for a VCM, as the file
// .without of its data directory names them; package sandbox reads it, too.
func withheld(spec Spec) func(layer string) bool {
	p, err := os.ReadFile(filepath.Join(spec.DataDir, ".without"))
	names := strings.Fields(string(p))
	return func(layer string) bool {
		return err == nil && (slices.Contains(names, layer) || slices.Contains(names, "all"))
	}
}

func weaken(p plan, spec Spec) plan {
	without := withheld(spec)
	for _, ns := range []struct {
		name, layer string
		flag        uintptr
	}{
		{"user", "ns-user", unix.CLONE_NEWUSER}, {"mnt", "root", unix.CLONE_NEWNS}, {"pid", "ns-pid", unix.CLONE_NEWPID},
		{"net", "ns-net", unix.CLONE_NEWNET}, {"ipc", "ns-ipc", unix.CLONE_NEWIPC}, {"uts", "ns-uts", unix.CLONE_NEWUTS},
	} {
		if without(ns.layer) {
			p.flags &^= ns.flag
			p.namespaces = slices.DeleteFunc(slices.Clone(p.namespaces), func(n string) bool { return n == ns.name })
		}
	}
	p.ownUID = p.ownUID && !without("own-uid")
	p.noNewPrivs = p.noNewPrivs && !without("no-new-privs")
	return p
}

// bareData hands the data directory over in the host's mount.
func bareData(spec Spec) bool { return withheld(spec)("root") }

func weakenGroup(g Group, spec Spec) Group {
	if withheld(spec)("cgroup") {
		g.Remove()
		return noGroup{}
	}
	return g
}
