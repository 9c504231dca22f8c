// Package sandbox takes from a vcmd what it does not need, and proves it.
//
// Begin is the first thing in main: it counts the descriptors the process was
// given and closes it to debuggers and core dumps. Enter, as soon as the
// process knows what it is, adds the rest, in this order: limits; an empty,
// read-only root with nothing but the data directory; no capabilities;
// no_new_privs; Landlock; a list of allowed system calls. Settle, when the store
// is open, ends the making of files. What the kernel or the launcher did not give
// is left out and said so.
//
// No line of the report repeats what a set-up call returned. Each is the
// outcome of an attempt made after its layer was added and before the next one,
// so that it speaks for that layer: opening /etc/passwd after the root was
// changed, opening / after Landlock, socket(2) after the filter.
//
// Attempts at calls that end the process in the finished sandbox are made
// between two filters: the first refuses them with EPERM, the second, loaded
// after the attempts, kills.
//
// A program that uses this package is built with CGO_ENABLED=0: only then can
// the Go runtime change all threads of the process. Built otherwise, the
// controls that need it are reported absent. It also needs the lines
//
//	//go:debug containermaxprocs=0
//	//go:debug updatemaxprocs=0
//
// or the runtime opens the host's control group files, which the count of
// descriptors refuses.
package sandbox

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// Levels of isolation, the strongest first.
const (
	Full     = "full"     // own uid, six namespaces, empty root, Landlock, filter, control group, secret memory
	Rootless = "rootless" // the same without own uid, control group and secret memory
	Landlock = "landlock" // Landlock, filter, no_new_privs and limits only
	Process  = "process"  // a process like any other
)

// levels are ordered, the strongest first.
func levels() []string { return []string{Full, Rootless, Landlock, Process} }

// What a control was found to be.
const (
	Enforced = "enforced"
	Partial  = "partial"
	Absent   = "absent"
)

// Config is what a sandbox must leave.
type Config struct {
	// DataDir keeps its number; it is reopened inside the new root.
	DataDir   *os.File
	Listeners []int // descriptors; exactly those that were inherited
	Isolation vcmcontrol.Isolation
	DiskQuota int64
	Memory    int64 // bytes that the process may use; 0 is not limited
}

// Report is what the sandbox was found to be, by attempts made inside it.
type Report struct {
	Level    string
	Controls []vcmcontrol.Control
}

// Control returns the named line.
func (r Report) Control(name string) vcmcontrol.Control {
	for _, c := range r.Controls {
		if c.Control == name {
			return c
		}
	}
	return vcmcontrol.Control{Control: name, Got: Absent, Reason: "not attempted"}
}

func (r *Report) add(name, wanted, got, reason, proof string) {
	r.Controls = append(r.Controls, vcmcontrol.Control{Control: name, Wanted: wanted, Got: got, Reason: reason, Proof: proof})
}

func (r Report) enforced(names ...string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return r.Control(n).Got != Enforced })
}

// Names of controls.
const (
	controlDescriptors  = "descriptors"
	controlDumpable     = "not-dumpable"
	controlLimits       = "limits"
	controlUser         = "ns-user"
	controlPID          = "ns-pid"
	controlNet          = "ns-net"
	controlIPC          = "ns-ipc"
	controlUTS          = "ns-uts"
	controlRoot         = "root"
	controlUID          = "own-uid"
	controlCgroup       = "cgroup"
	controlSecretMemory = "secret-memory"
	controlCapabilities = "capabilities"
	controlNoNewPrivs   = "no-new-privs"
	controlLandlock     = "landlock"
	controlSyscalls     = "syscalls"
	controlKill         = "syscalls-kill"
	controlFiles        = "files"
)

// needed lists the controls a level consists of, beyond those of the next weaker one.
func needed(level string) []string {
	switch level {
	case Full:
		return []string{controlUID, controlCgroup, controlSecretMemory}
	case Rootless:
		return []string{controlUser, controlPID, controlNet, controlIPC, controlUTS, controlRoot, controlCapabilities}
	case Landlock:
		return []string{controlDescriptors, controlDumpable, controlLimits, controlNoNewPrivs, controlLandlock, controlSyscalls, controlKill, controlFiles}
	default:
		return nil
	}
}

// level is the strongest level whose controls, and those of all weaker ones,
// are enforced, but for those still to come.
func (r Report) level(later ...string) string {
	reached := Process
	for _, l := range []string{Landlock, Rootless, Full} {
		if !r.enforced(slices.DeleteFunc(needed(l), func(n string) bool { return slices.Contains(later, n) })...) {
			break
		}
		reached = l
	}
	return reached
}

// Door is a sandbox that is being entered.
type Door struct {
	census census
	report Report
	floor  string
	statm  *os.File
}

// Begin does what cannot wait: it must be the first thing in main. It counts
// the descriptors and refuses undeclared ones, and closes the process to
// debuggers and core dumps.
func Begin() (*Door, error) {
	d := &Door{}
	var err error
	if d.census, err = takeCensus(); err != nil {
		return nil, err
	}
	d.report.add(controlDescriptors, "the declared descriptors only", Enforced, "", d.census.String())
	if err := forbidDumps(); err != nil {
		return nil, err
	}
	return d, nil
}

// Enter builds the sandbox, but for what Settle adds, and tries to get out of it.
// It fails with kind Refused below the floor.
func (d *Door) Enter(cfg Config) (Report, error) {
	if err := d.census.matches(cfg.Listeners); err != nil {
		return Report{}, err
	}
	if fd, err := unix.Open("/proc/self/statm", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		d.statm = os.NewFile(uintptr(fd), "statm") // without, Memory asks the runtime
	}
	filters, done := filterCount()
	defer done()
	r := &d.report
	uids := readUIDMap()
	r.proveDumps(uids, cfg.Isolation)
	r.limit(cfg, uids)
	r.proveNamespaces(d.census, uids, cfg.Isolation)
	r.proveHost(uids, cfg.Isolation)
	r.proveSecretMemory()
	r.changeRoot(cfg)
	r.dropCapabilities()
	r.forbidNewPrivileges()
	r.confineFiles(cfg.DataDir)
	r.filterSyscalls(filters)
	r.Level = r.level(controlFiles)
	d.floor = cfg.Isolation.Floor
	if err := r.admit(d.floor); err != nil {
		return Report{}, err
	}
	return *r, nil
}

// admit refuses a level below the floor and says what is missing.
func (r Report) admit(floor string) error {
	at := slices.Index(levels(), floor)
	if at < 0 {
		return errkind.Errorf(errkind.Invalid, "isolation floor %q is none of %s", floor, strings.Join(levels(), ", "))
	}
	if slices.Index(levels(), r.Level) <= at {
		return nil
	}
	var missing []string
	for _, l := range levels()[at:] {
		for _, name := range needed(l) {
			if c := r.Control(name); c.Got != Enforced {
				missing = append(missing, name+" ("+c.Reason+")")
			}
		}
	}
	return errkind.Errorf(errkind.Refused, "isolation is at level %s, below the floor %s: missing %s; lower the floor with --isolation-floor",
		r.Level, floor, strings.Join(missing, ", "))
}
