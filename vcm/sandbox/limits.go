package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

const (
	maxDescriptors = 16 << 10
	// maxThreads bounds threads where the count is the process's own, that is
	// in a user namespace.
	maxThreads = 256
	// minLogSize keeps a log file on standard error writable.
	minLogSize = 256 << 20
	// memoryReserve is what the Go runtime maps and does not use.
	memoryReserve = 128 << 20
	// fileReserve is what a file of the store may need beyond two quotas.
	fileReserve = 8 << 20
)

// forbidDumps keeps the process's memory from debuggers of the same user and
// from core files.
func forbidDumps() error {
	return enforce(controlDumpable, func() error {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return errkind.Errorf(errkind.Internal, "forbid dumps: %w", err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
			return errkind.Errorf(errkind.Internal, "forbid core files: %w", err)
		}
		return nil
	})
}

// proveDumps does not speak for who owns the user namespace, to whom the kernel
// gives every privilege in it: with uids of their own VCMs belong to root's, else to
// the orchestrator's user. From that one only a program keeps the process that this
// user may not read.
func (r *Report) proveDumps(m uidMap, i vcmcontrol.Isolation) {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var core unix.Rlimit
	coreErr := unix.Getrlimit(unix.RLIMIT_CORE, &core)
	got, reason := Enforced, ""
	if err != nil || coreErr != nil || dumpable != 0 || core.Max != 0 {
		got, reason = Absent, "the kernel still allows dumps"
	}
	proof := fmt.Sprintf("PR_GET_DUMPABLE = %d, core limit %d", dumpable, core.Max)
	if m.own() && !i.DistinctUID {
		kept, err := "is not kept out", readProgram()
		if err == unix.EACCES {
			kept = "is kept out, too"
		}
		proof += fmt.Sprintf("; open of the program → %s: uid %s, which owns the user namespace, %s", outcome(err), m.outside(), kept)
	}
	r.add(controlDumpable, "no debugger without privilege, no core file", got, reason, proof)
}

// readProgram tries to read the program that this process runs.
func readProgram() error {
	fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// limit sets what one process may take, and tries to exceed the file size.
func (r *Report) limit(cfg Config, m uidMap) {
	const wanted = "bounded descriptors, file size, memory and, in a user namespace, threads"
	// A write over the limit shall fail, not end the process.
	signal.Ignore(syscall.SIGXFSZ)
	size := uint64(2*cfg.DiskQuota + fileReserve)
	if isKind(unix.Stderr, unix.S_IFREG) {
		size = max(size, minLogSize)
	}
	limits := boundaries(size, cfg.Memory, m.own())
	if err := enforce(controlLimits, func() error { return lower(limits) }); err != nil {
		r.add(controlLimits, wanted, Absent, err.Error(), "")
		return
	}
	err := exceedFileSize(int64(size) + 1)
	got, reason := Enforced, ""
	if err != unix.EFBIG {
		got, reason = Absent, "a file larger than the limit could be made"
	}
	proof := fmt.Sprintf("ftruncate to %d bytes → %s", size+1, outcome(err))
	for _, l := range limits {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.resource, &now); err != nil || now.Max > l.value {
			got, reason = Absent, l.name+" is not bounded"
		}
		proof += fmt.Sprintf("; %s ≤ %d", l.name, now.Max)
	}
	r.add(controlLimits, wanted, got, reason, proof)
}

// boundary is the most of one resource.
type boundary struct {
	name     string
	resource int
	value    uint64
}

func boundaries(fileSize uint64, memory int64, userNamespace bool) []boundary {
	all := []boundary{
		{"descriptors", unix.RLIMIT_NOFILE, maxDescriptors}, {"file size", unix.RLIMIT_FSIZE, fileSize}, {"message queues", unix.RLIMIT_MSGQUEUE, 0},
	}
	// Also where there is no control group. The kernel counts what may be written,
	// the Go runtime makes that so in large pieces.
	if memory > 0 {
		all = append(all, boundary{"memory", unix.RLIMIT_DATA, uint64(memory + memoryReserve)})
	}
	// Outside of a user namespace the kernel counts the threads of everybody who
	// has the same uid: there the control group bounds them, or nothing.
	if userNamespace {
		all = append(all, boundary{"threads", unix.RLIMIT_NPROC, maxThreads})
	}
	return all
}

// lower sets the limits, and leaves those that are lower already.
func lower(limits []boundary) error {
	for _, l := range limits {
		var now unix.Rlimit
		err := unix.Getrlimit(l.resource, &now)
		if err == nil {
			v := min(l.value, now.Max)
			err = unix.Setrlimit(l.resource, &unix.Rlimit{Cur: v, Max: v})
		}
		if err != nil {
			return fmt.Errorf("bound %s: %w", l.name, err)
		}
	}
	return nil
}

// exceedFileSize tries to make a file of the given size. The kernel counts for one
// in memory as for any other, and it leaves no inode behind that was just freed: for
// a minute a file system without a journal searches past each of those.
func exceedFileSize(size int64) error {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Ftruncate(fd, size)
}

// outcome is how an attempt ended, by the kernel's name for it.
func outcome(err error) string {
	if err == nil {
		return "allowed"
	}
	if e, ok := err.(unix.Errno); ok {
		if name := unix.ErrnoName(e); name != "" {
			return name
		}
	}
	return err.Error()
}

// Memory is what the process has resident, in bytes; where the kernel did not
// let it look, what the Go runtime holds.
func (d *Door) Memory() int64 {
	if d.statm != nil {
		var buf [128]byte
		n, _ := d.statm.ReadAt(buf[:], 0) // EOF is expected
		if f := bytes.Fields(buf[:n]); len(f) > 1 {
			if pages, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
				return pages * int64(os.Getpagesize())
			}
		}
	}
	var held runtime.MemStats
	runtime.ReadMemStats(&held) // unlike runtime/metrics it costs a start nothing
	return int64(held.Sys - held.HeapReleased)
}
