package sandbox

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// rights are what one version of Landlock can take away.
type rights struct{ fs, net, scoped uint64 }

// The first version took away everything up to making symbolic links.
const firstFS = ll.AccessFSMakeSym<<1 - 1

// rightsOf says what version abi knows of. Versions after the last one listed
// are used as that one: what they add is not known here.
func rightsOf(abi int) rights {
	r := rights{fs: firstFS}
	if abi >= 2 {
		r.fs |= ll.AccessFSRefer
	}
	if abi >= 3 {
		r.fs |= ll.AccessFSTruncate
	}
	if abi >= 4 {
		r.net = ll.AccessNetBindTCP | ll.AccessNetConnectTCP
	}
	if abi >= 5 {
		r.fs |= ll.AccessFSIoctlDev
	}
	if abi >= 6 {
		r.scoped = ll.ScopeAbstractUnixSocket | ll.ScopeSignal
	}
	return r
}

// fullABI is the version from which on Landlock also keeps processes apart.
const fullABI = 6

// errataSignals marks kernels where threads of one process may signal each
// other in spite of the scope, which the Go runtime needs.
const errataSignals = 1 << 1

// dataRights are what the store does in its directory.
const dataRights = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSReadDir | ll.AccessFSRemoveFile |
	ll.AccessFSMakeReg | ll.AccessFSTruncate

// confineFiles leaves the data directory and nothing else of the file system,
// no TCP port and nobody to signal, and tries each.
func (r *Report) confineFiles(data *os.File) {
	wanted := fmt.Sprintf("the data directory only, version %d or newer", fullABI)
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		r.add(controlLandlock, wanted, Absent, "the kernel has no Landlock: "+outcome(err), "")
		return
	}
	stranger, err := abstractSocket() // made outside, to be reached from inside
	if err != nil {
		r.add(controlLandlock, wanted, Absent, "nothing to try with: "+outcome(err), "")
		return
	}
	defer unix.Close(stranger)
	have := rightsOf(abi)
	if errata, err := ll.LandlockGetErrata(); err != nil || errata&errataSignals == 0 {
		have.scoped &^= ll.ScopeSignal
	}
	if err := enforce(controlLandlock, func() error { return restrict(have, int(data.Fd())) }); err != nil {
		r.add(controlLandlock, wanted, Absent, err.Error(), "")
		return
	}
	r.proveLandlock(wanted, abi, int(data.Fd()), stranger)
}

func restrict(have rights, data int) error {
	rules, err := ll.LandlockCreateRuleset(&ll.RulesetAttr{HandledAccessFS: have.fs, HandledAccessNet: have.net, Scoped: have.scoped}, 0)
	if err != nil {
		return fmt.Errorf("make Landlock rules: %w", err)
	}
	defer unix.Close(rules)
	rule := &ll.PathBeneathAttr{AllowedAccess: dataRights & have.fs, ParentFd: data}
	if err := ll.LandlockAddPathBeneathRule(rules, rule, 0); err != nil {
		return fmt.Errorf("add the Landlock rule for the data directory: %w", err)
	}
	return enforceRules(rules)
}

func enforceRules(rules int) error {
	// Every thread by itself: the kernels of today know no other way. Without
	// cgo the Go runtime can do that; see the package comment.
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); e != 0 {
		return fmt.Errorf("enforce Landlock: %w", e)
	}
	return nil
}

func (r *Report) proveLandlock(wanted string, abi, data, stranger int) {
	attempts := []struct {
		what string
		err  error
		want error
		from int // version
	}{
		{"open of /", tryOpen("/"), unix.EACCES, 1},
		{"open of data", tryOpenAt(data, "."), nil, 1},
		{"make a folder in data", tryFolder(data), unix.EACCES, 1},
		{"bind to a TCP port", tryBind(), unix.EACCES, 4},
		{"connect to a stranger's abstract socket", tryAbstract(stranger), unix.EPERM, 6},
	}
	got, reason := Enforced, ""
	proof := []string{fmt.Sprintf("version %d", abi)}
	for _, a := range attempts {
		if abi < a.from {
			continue
		}
		proof = append(proof, a.what+" → "+outcome(a.err))
		if a.err != a.want {
			got, reason = Absent, a.what+" was not as it should be"
		}
	}
	if abi < fullABI && got == Enforced {
		reason = fmt.Sprintf("the kernel has version %d only", abi)
		got = Partial
	}
	r.add(controlLandlock, wanted, got, reason, strings.Join(proof, "; "))
}

const probeName = ".probe"

// tryFolder makes a folder in the data directory, which the store never does.
func tryFolder(dir int) error {
	err := unix.Mkdirat(dir, probeName, 0o700)
	if err == nil {
		_ = unix.Unlinkat(dir, probeName, unix.AT_REMOVEDIR)
	}
	return err
}

func tryBind() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{})
}

// abstractSocket makes a local socket with a name that the kernel chooses.
func abstractSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func tryAbstract(stranger int) error {
	name, err := unix.Getsockname(stranger)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, name)
}
