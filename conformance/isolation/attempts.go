package isolation

import "slices"

// attempt is one thing that a VCM which was taken over tries.
type attempt struct {
	name, about string
	// rootOnly: the host's own rules keep everybody else from it, so that there
	// is no positive control as nobody.
	rootOnly bool
	// ends: the VCM's process may end of it also where nothing is in its way.
	last bool
}

func attempts() []attempt {
	return []attempt{
		{name: "read-file", about: "read the neighbour's store"},
		{name: "read-environ", about: "read the neighbour's environment in /proc"},
		{name: "read-cmdline", about: "see the neighbour in /proc"},
		{name: "read-memory", about: "read the neighbour's memory in /proc"},
		{name: "ptrace", about: "become the neighbour's debugger"},
		{name: "vm-read", about: "process_vm_readv of the neighbour"},
		{name: "signal", about: "send the neighbour a signal"},
		{name: "pidfd", about: "take hold of the neighbour's process"},
		{name: "connect", about: "connect to the neighbour's port"},
		{name: "abstract", about: "connect to an abstract socket of the host"},
		{name: "shared-memory", about: "attach the host's System V shared memory"},
		{name: "read-passwd", about: "read /etc/passwd"},
		{name: "read-state", about: "read the platform's state"},
		{name: "climb", about: "leave the data directory upwards by its descriptor"},
		{name: "list-root", about: "open /"},
		{name: "write-outside", about: "write a file outside of the data directory"},
		{name: "make-file", about: "make a file in the data directory"},
		{name: "open-by-handle", about: "open a file of the host by its number", rootOnly: true},
		{name: "device-node", about: "make a device and open it", rootOnly: true},
		{name: "mount", about: "mount a file system", rootOnly: true},
		{name: "hsm-socket", about: "connect to hsmd"},
		{name: "signal-host", about: "send the orchestrator a signal"},
		{name: "connect-host", about: "connect to a service of the platform"},
		{name: "bind", about: "bind a port of its own"},
		{name: "raw-socket", about: "listen to the network's packets", rootOnly: true},
		{name: "domain-name", about: "rename the host's domain", rootOnly: true},
		{name: "chroot", about: "chroot", rootOnly: true},
		{name: "become-other", about: "become another user", rootOnly: true},
		{name: "set-uid", about: "gain root by a set-uid program"},
		{name: "fork", about: "make a process"},
		{name: "user-namespace", about: "make a process that is root in a user namespace"},
		{name: "own-program", about: "execute a program of its own"},
		{name: "new-code", about: "make memory executable"},
		{name: "dumpable", about: "become dumpable"},
		{name: "raise-limit", about: "set a resource limit"},
		{name: "keyring", about: "use the kernel's keyrings"},
		{name: "io-uring", about: "set up io_uring"},
		{name: "bpf", about: "make a BPF map", rootOnly: true},
		{name: "another-filter", about: "load a system call filter"},
		{name: "big-file", about: "make the store's file 512 MiB large"},
		{name: "fill-store", about: "write 64 MiB into each of the store's two files"},
		{name: "many-files", about: "make 64 files of 16 MiB"},
		{name: "fork-bomb", about: "make 400 processes"},
		{name: "memory", about: "use 512 MiB of memory", last: true},
		{name: "threads", about: "make 600 threads", last: true},
	}
}

func attemptNames() (out []string) {
	for _, a := range attempts() {
		out = append(out, a.name)
	}
	return out
}

// controls reports whether an attempt has to succeed where there is no layer.
func (a attempt) controls(asRoot bool) bool {
	if a.name == "set-uid" { // root has nothing to gain
		return !asRoot
	}
	return asRoot || !a.rootOnly
}

// tried reports whether it makes sense at all.
func (a attempt) tried(asRoot bool) bool { return !(a.name == "set-uid" && asRoot) }

func has(list []string, name string) bool { return slices.Contains(list, name) }
