package isolation

import (
	"slices"
	"strings"
)

// Layers that can be left out, by the names of their lines in a VCM's report.
const (
	dumpable     = "not-dumpable"
	limits       = "limits"
	user         = "ns-user"
	pid          = "ns-pid"
	network      = "ns-net"
	ipc          = "ns-ipc"
	uts          = "ns-uts"
	root         = "root"
	ownUID       = "own-uid"
	cgroup       = "cgroup"
	capabilities = "capabilities"
	noNewPrivs   = "no-new-privs"
	landlock     = "landlock"
	syscalls     = "syscalls"
	kill         = "syscalls-kill"
	files        = "files"
)

// layer is one of them, and what it must prevent by itself.
type layer struct {
	name string
	// needs are layers without which the kernel does not grant it to root; nobody
	// also needs a user namespace for every other one.
	needs []string
	// privileged: only root can give it.
	privileged bool
	// stops, and stopsNobody where that differs, are attempts that fail in a VCM
	// that has this layer alone and the ones it needs.
	stops, stopsNobody []string
}

func layers() []layer {
	proc := []string{"read-memory", "ptrace", "vm-read"}
	return []layer{
		// Nothing keeps root from reading: there it is the uid that does.
		{name: dumpable, stopsNobody: proc},
		{name: limits, stops: []string{"big-file", "fill-store", "memory"}},
		{name: user, stops: []string{"mount", "device-node", "open-by-handle", "bpf", "raw-socket", "domain-name", "become-other"}, stopsNobody: []string{"become-other"}},
		{name: pid, stops: []string{"ptrace", "vm-read", "signal", "signal-host", "pidfd"}},
		{name: network, stops: []string{"connect", "connect-host", "bind", "abstract"}},
		{name: ipc, stops: []string{"shared-memory"}},
		{name: uts, stops: []string{"domain-name"}, stopsNobody: []string{}},
		{name: root, stops: []string{"read-file", "read-environ", "read-cmdline", "read-memory", "read-passwd", "read-state", "climb", "write-outside", "hsm-socket", "device-node"}},
		{name: ownUID, privileged: true, stops: []string{"read-file", "read-environ", "read-memory", "ptrace", "vm-read", "signal", "signal-host", "read-state", "hsm-socket",
			"mount", "chroot", "device-node", "open-by-handle", "bpf", "raw-socket", "become-other", "domain-name", "climb"}},
		{name: cgroup, privileged: true, stops: []string{"memory", "fork-bomb", "threads"}},
		{name: capabilities, stops: []string{"mount", "chroot", "device-node", "open-by-handle", "bpf", "raw-socket", "become-other", "domain-name"}, stopsNobody: []string{}},
		{name: noNewPrivs, stopsNobody: []string{"set-uid"}},
		{name: landlock, needs: []string{noNewPrivs}, stops: []string{"read-file", "read-environ", "read-cmdline", "read-memory", "ptrace", "signal", "signal-host", "connect", "connect-host",
			"bind", "abstract", "write-outside", "climb", "list-root", "read-passwd", "read-state", "mount", "device-node"}},
		{name: syscalls, needs: []string{noNewPrivs}, stops: []string{"ptrace", "vm-read", "signal", "signal-host", "pidfd", "connect", "connect-host", "abstract", "shared-memory",
			"hsm-socket", "bind", "raw-socket", "mount", "chroot", "device-node", "open-by-handle", "domain-name", "become-other", "fork", "user-namespace",
			"own-program", "new-code", "dumpable", "raise-limit", "keyring", "io-uring", "bpf", "fork-bomb"}},
		{name: kill, needs: []string{noNewPrivs}, stops: []string{"ptrace", "vm-read", "pidfd", "connect", "connect-host", "abstract", "hsm-socket", "bind", "raw-socket", "mount",
			"chroot", "open-by-handle", "own-program", "keyring", "io-uring", "bpf", "another-filter"}},
		{name: files, needs: []string{noNewPrivs}, stops: []string{"make-file", "many-files"}},
	}
}

func layerNames() (out []string) {
	for _, l := range layers() {
		out = append(out, l.name)
	}
	return out
}

// row is a platform with some of the layers.
type row struct {
	name   string
	has    []string
	stops  []string // attempts that must fail in it
	lacks  string   // the one layer it has not
	reason string   // why there is no such row here; then it is only named
}

func (r row) without() string {
	var out []string
	for _, name := range layerNames() {
		if !slices.Contains(r.has, name) {
			out = append(out, name)
		}
	}
	return strings.Join(out, "\n")
}

// rows are those to run for root or for nobody. Cgroups says whether there are
// any to be had.
func rows(asRoot, cgroups bool) []row {
	out := []row{{name: "nothing"}}
	given := func(l layer) string {
		switch {
		case l.name == cgroup && !cgroups:
			return "there is no control group to be had"
		case l.privileged && !asRoot:
			return "only root can give it"
		default:
			return ""
		}
	}
	namespace := []string{user, pid, network, ipc, uts, root}
	var all []string
	for _, l := range layers() {
		if given(l) == "" {
			all = append(all, l.name)
		}
	}
	for _, l := range layers() {
		r := row{name: "only " + l.name, has: append([]string{l.name}, l.needs...), stops: l.stops, reason: given(l)}
		if !asRoot && slices.Contains(namespace, l.name) {
			r.has = append(r.has, user)
		}
		if !asRoot && l.stopsNobody != nil {
			r.stops = l.stopsNobody
		}
		out = append(out, r)
	}
	for _, l := range layers() {
		r := row{name: "all but " + l.name, lacks: l.name, reason: given(l)}
		for _, name := range all {
			// Without a user namespace nobody gets no other one.
			gone := name == l.name || !asRoot && l.name == user && slices.Contains(namespace, name)
			if !gone {
				r.has = append(r.has, name)
			}
		}
		out = append(out, r)
	}
	return append(out, row{name: "everything", has: all, stops: attemptNames()})
}
