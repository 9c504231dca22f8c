package sandbox

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// The kernel gives the first namespace of each kind a fixed number.
const (
	initialIPC = "ipc:[4026531839]"
	initialUTS = "uts:[4026531838]"
)

// wholeRange is uid_map of a process in the first user namespace.
const wholeRange = "0 0 4294967295"

// uidMap is the process's uid_map, "" where there is none.
type uidMap string

func readUIDMap() uidMap {
	p, err := readFile("/proc/self/uid_map")
	if err != nil {
		return ""
	}
	return uidMap(strings.Join(strings.Fields(string(p)), " "))
}

// own reports whether the process is in a user namespace of its own.
func (m uidMap) own() bool { return m != "" && m != wholeRange }

// outside is the process's uid as the host sees it.
func (m uidMap) outside() string {
	f := strings.Fields(string(m))
	if !m.own() || len(f) != 3 {
		return strconv.Itoa(os.Getuid())
	}
	return f[1]
}

func (r *Report) prove(name, wanted string, ok bool, reason, proof string) {
	if ok {
		r.add(name, wanted, Enforced, "", proof)
	} else {
		r.add(name, wanted, Absent, reason, proof)
	}
}

const notGiven = "the launcher did not give one, or the kernel refused it"

// proveNamespaces looks around from inside the namespaces the launcher made.
func (r *Report) proveNamespaces(c census, m uidMap, i vcmcontrol.Isolation) {
	r.prove(controlUser, "a user namespace of its own", m.own(), notGiven, "uid_map = "+string(m))
	pid, ppid := os.Getpid(), os.Getppid()
	r.prove(controlPID, "no other process is visible", pid == 1 && ppid == 0, notGiven, fmt.Sprintf("getpid = %d, getppid = %d", pid, ppid))
	r.proveNetwork(c)
	for _, ns := range []struct{ control, name, initial string }{{controlIPC, "ipc", initialIPC}, {controlUTS, "uts", initialUTS}} {
		link, err := os.Readlink("/proc/self/ns/" + ns.name)
		outside := i.Outside[ns.name]
		if outside == "" {
			outside = ns.initial
		}
		r.prove(ns.control, "a namespace of its own", err == nil && link != outside && link != ns.initial, notGiven, link+", outside it is "+outside)
	}
}

// proveNetwork tries to reach a listener that is known to be open: the
// process's own, from outside it.
func (r *Report) proveNetwork(c census) {
	const wanted = "no network but the inherited listeners"
	if len(c.listeners) == 0 {
		r.add(controlNet, wanted, Absent, "there is no listener to try with", "")
		return
	}
	err := reach(c.listeners[0])
	r.prove(controlNet, wanted, err == unix.ENETUNREACH || err == unix.EADDRNOTAVAIL, notGiven, "connect to an open listener → "+outcome(err))
}

// reach connects to the address that listener has.
func reach(listener int) error {
	address, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	domain := unix.AF_INET
	if _, ok := address.(*unix.SockaddrInet6); ok {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, address); err != unix.EINPROGRESS {
		return err
	}
	return nil // on its way: the address can be reached
}

// proveHost looks at what only a privileged launcher can give.
func (r *Report) proveHost(m uidMap, i vcmcontrol.Isolation) {
	var st unix.Stat_t
	err := unix.Fstat(vcmcontrol.DataDirFD, &st)
	outside := m.outside()
	// The data directory belongs to the uid, so the VCM's own files do; that no
	// other VCM has the uid is the launcher's word.
	own := i.DistinctUID && err == nil && int(st.Uid) == os.Getuid() && outside != "0" && outside != ""
	r.prove(controlUID, "a uid that no other VCM has", own, "the launcher has no uids to give",
		fmt.Sprintf("uid %d inside, %s outside; the data directory's owner is %d", os.Getuid(), outside, st.Uid))

	bounds, err := ownBounds()
	switch {
	case i.Cgroup == "":
		r.add(controlCgroup, boundedBy, Absent, "the launcher has no control group to give", bounds)
	case err != nil:
		r.add(controlCgroup, boundedBy, Absent, err.Error(), bounds)
	default:
		r.add(controlCgroup, boundedBy, Enforced, "", i.Cgroup+": "+bounds)
	}
}

// proveSecretMemory makes a page that not even the kernel has mapped.
func (r *Report) proveSecretMemory() {
	err := trySecretMemory()
	r.prove(controlSecretMemory, "keys travel in memory outside the kernel's map", err == nil, "memfd_secret is not to be had", "memfd_secret, mmap, write → "+outcome(err))
}

func trySecretMemory() error {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 1); err != nil {
		return err
	}
	m, err := unix.Mmap(fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[0] = 1
	return unix.Munmap(m)
}
