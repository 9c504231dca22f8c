package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// The controllers of what is written to disks.
const (
	diskV1 = "blkio"
	diskV2 = "io"
)

// Disk is a whole disk, MAJOR:MINOR, as control groups name it; "" is none.
type Disk string

// DiskOf finds the disk that a folder's files are written to, also of one that is
// not there yet. There is none that can be bounded where a file system has no disk
// or several.
func DiskOf(dir string) (Disk, error) {
	var st unix.Stat_t
	for err := unix.Stat(dir, &st); err != nil; err = unix.Stat(dir, &st) {
		above := filepath.Dir(dir)
		if err != unix.ENOENT || above == dir {
			return "", &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		dir = above
	}
	device := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	path, err := filepath.EvalSymlinks(device)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(path, "partition")); err == nil {
		path = filepath.Dir(path)
	}
	name, err := os.ReadFile(filepath.Join(path, "dev"))
	return Disk(strings.TrimSpace(string(name))), err
}

// Written is how many bytes were written to the disk since the host was started.
func (d Disk) Written() (int64, error) {
	const sectors, sector = 6, 512
	path := filepath.Join("/sys/dev/block", string(d), "stat")
	p, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(p))
	if len(fields) <= sectors {
		return 0, errkind.Errorf(errkind.Unavailable, "%s has %d fields", path, len(fields))
	}
	n, err := strconv.ParseInt(fields[sectors], 10, 64)
	return n * sector, err
}

// slow is the folder of the group for a VCM that is to write slower. In v1 it is
// made for who needs it: each further group would make every start longer.
func (h *hierarchy) slow(name string) string {
	if h.disk == "" {
		return ""
	}
	return filepath.Join(h.disk, name)
}

// Adopt implements Cgroups.
func (h *hierarchy) Adopt(name, version string, dirs []string) Group {
	return &group{version: version, dirs: dirs, slow: h.slow(name)}
}

// Throttle implements Group.
func (g *group) Throttle(pid int, disk Disk, bytesPerSecond int64) error {
	if disk == "" {
		return nil
	}
	if g.version == "v2" {
		limit := "max"
		if bytesPerSecond > 0 {
			limit = strconv.FormatInt(bytesPerSecond, 10)
		}
		err := write(g.dirs[0], "io.max", fmt.Sprintf("%s wbps=%s", disk, limit))
		if errors.Is(err, fs.ErrNotExist) { // without that controller
			return nil
		}
		return err
	}
	if g.slow == "" {
		return nil
	}
	if _, err := os.Stat(g.slow); errors.Is(err, fs.ErrNotExist) && bytesPerSecond == 0 {
		return nil // it never was in one
	}
	if err := os.MkdirAll(g.slow, 0o755); err != nil {
		return err
	}
	if err := write(g.slow, "blkio.throttle.write_bps_device", fmt.Sprintf("%s %d", disk, bytesPerSecond)); err != nil {
		return err
	}
	return write(g.slow, "cgroup.procs", strconv.Itoa(pid))
}

// Written is how many bytes the process has caused to be written to disks; 0 where
// this process may not know.
func (p *Process) Written() int64 {
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.PID()))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(io), "\nwrite_bytes: ")
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseInt(line, 10, 64)
	return n
}

// Throttle bounds what the process writes to a disk; 0 is no bound.
func (p *Process) Throttle(disk Disk, bytesPerSecond int64) error {
	return p.group.Throttle(p.PID(), disk, bytesPerSecond)
}
