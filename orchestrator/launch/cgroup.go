package launch

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Cgroups makes a control group a VCM. Both versions of the kernel's interface
// are behind it, because many hosts still have the first one or a mix.
type Cgroups interface {
	Make(name string, limits Limits) (Group, error)
	// Adopt returns a group that another made like that.
	Adopt(name, version string, dirs []string) Group
	// Sweep removes the empty groups that keep does not want, and reports whether
	// others of those are left: their processes are about to end.
	Sweep(keep func(name string) bool) (left bool)
	// Close removes what FindCgroups made, once every group is gone.
	Close() error
}

// Group is one VCM's control group.
type Group interface {
	Version() string // "", v1, v2
	Add(pid int) error
	// Visit returns the files by which a thread enters the group by itself, for a
	// child that is born there, and leaves it again; none if that takes more.
	Visit() (enter, leave []string)
	// Dirs are its folders.
	Dirs() []string
	// Throttle bounds what its process writes to a disk; 0 is no bound.
	Throttle(pid int, disk Disk, bytesPerSecond int64) error
	// Remove drops the group after its last process has ended.
	Remove()
}

// NoCgroups is for hosts where none can be written.
func NoCgroups() Cgroups { return none{} }

type none struct{}

func (none) Make(string, Limits) (Group, error) { return noGroup{}, nil }

func (none) Adopt(_, version string, dirs []string) Group {
	return &group{version: version, dirs: dirs}
}

func (none) Sweep(func(string) bool) bool { return false }

func (none) Close() error { return nil }

type noGroup struct{}

func (noGroup) Version() string { return "" }
func (noGroup) Add(int) error   { return nil }
func (noGroup) Dirs() []string  { return nil }
func (noGroup) Remove()         {}

func (noGroup) Throttle(int, Disk, int64) error { return nil }

func (noGroup) Visit() (enter, leave []string) { return nil, nil }

// controllers are what a VCM's group must bound.
var controllers = []string{"memory", "pids", "cpu"}

// hierarchy is a tree of control groups that we may write below base.
type hierarchy struct {
	version string
	// bases is where each controller's groups are made; one folder for all in v2.
	bases map[string]string
	// homes is where the orchestrator is, in v1.
	homes map[string]string
	// disk is where groups are made that write slower, in v1; "" for nowhere.
	disk string
	// enabled are the controllers that groups were given, in v2.
	enabled []string
	// leaf is the group that the orchestrator made way to, in v2, if it had to.
	leaf string
}

// FindCgroups looks for writable control groups of the calling process and
// makes a folder called name in them. The error says what is missing; the
// Cgroups returned with it makes none.
func FindCgroups(name string) (Cgroups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return none{}, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return none{}, err
	}
	h, err := findCgroups(string(mounts), string(own), name)
	if err != nil {
		return none{}, err
	}
	return h, nil
}

func findCgroups(mountinfo, own, name string) (*hierarchy, error) {
	v1, v2 := locate(mountinfo, own)
	var errs []error
	if v2 != "" {
		h, err := prepareV2(delegated(v2), name)
		if err == nil {
			return h, nil
		}
		errs = append(errs, fmt.Errorf("v2: %w", err))
	}
	h, err := prepareV1(v1, name)
	if err == nil {
		return h, nil
	}
	return nil, errors.Join(append(errs, fmt.Errorf("v1: %w", err))...)
}

// locate returns the calling process's group in each hierarchy, as folders.
func locate(mountinfo, own string) (v1 map[string]string, v2 string) {
	paths := map[string]string{} // controller, or "" for v2, to path
	for sc := bufio.NewScanner(strings.NewReader(own)); sc.Scan(); {
		f := strings.SplitN(sc.Text(), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			paths[c] = f[2]
		}
	}
	v1 = map[string]string{}
	for sc := bufio.NewScanner(strings.NewReader(mountinfo)); sc.Scan(); {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		root, point := l[3], l[4]
		switch r[0] {
		case "cgroup2":
			v2 = below(point, root, paths[""])
		case "cgroup":
			for _, c := range strings.Split(r[2], ",") {
				if p, ok := paths[c]; ok {
					v1[c] = below(point, root, p)
				}
			}
		}
	}
	return v1, v2
}

// below is where path of a hierarchy appears under a mount of its folder root.
func below(point, root, path string) string {
	rel := strings.TrimPrefix(path, strings.TrimSuffix(root, "/"))
	return filepath.Join(point, rel)
}

func prepareV1(own map[string]string, name string) (*hierarchy, error) {
	h := &hierarchy{version: "v1", bases: map[string]string{}, homes: own}
	for _, c := range controllers {
		if own[c] == "" {
			return nil, errkind.Errorf(errkind.Unavailable, "no %s controller", c)
		}
		dir := filepath.Join(own[c], name)
		if err := mkdir(dir); err != nil {
			return nil, err
		}
		h.bases[c] = dir
	}
	if own[diskV1] != "" {
		h.disk = filepath.Join(own[diskV1], name)
	}
	return h, nil
}

// prepareV2 makes OWN/name with the controllers enabled. The kernel allows that
// only where no process lives beside it, so the caller moves to a leaf.
func prepareV2(own, name string) (*hierarchy, error) {
	have, err := os.ReadFile(filepath.Join(own, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(string(have)), c) {
			return nil, errkind.Errorf(errkind.Unavailable, "no %s controller in %s", c, own)
		}
	}
	h := &hierarchy{version: "v2", bases: map[string]string{}, enabled: slices.Clone(controllers)}
	if slices.Contains(strings.Fields(string(have)), diskV2) { // it can be done without
		h.enabled = append(h.enabled, diskV2)
	}
	enable := "+" + strings.Join(h.enabled, " +")
	if err := write(own, "cgroup.subtree_control", enable); err != nil {
		h.leaf = filepath.Join(own, name+"-orchestrator")
		if err := mkdir(h.leaf); err != nil {
			return nil, err
		}
		err := write(h.leaf, "cgroup.procs", strconv.Itoa(os.Getpid()))
		if err == nil {
			err = write(own, "cgroup.subtree_control", enable)
		}
		if err != nil {
			h.comeBack()
			return nil, err
		}
	}
	dir := filepath.Join(own, name)
	if err := mkdir(dir); err != nil {
		return nil, err
	}
	if err := write(dir, "cgroup.subtree_control", enable); err != nil {
		return nil, err
	}
	for _, c := range controllers {
		h.bases[c] = dir
	}
	return h, nil
}

// comeBack leaves the group that the orchestrator was started in as it was found,
// once those of VCMs are gone: a service manager starts the next one there.
func (h *hierarchy) comeBack() {
	if h.leaf == "" {
		return
	}
	own := filepath.Dir(h.leaf)
	_ = write(own, "cgroup.subtree_control", "-"+strings.Join(h.enabled, " -"))
	if err := write(own, "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
		return // somebody else divides it
	}
	_ = os.Remove(h.leaf)
}

// delegated is the group that the caller may divide, given the one that it is in:
// that one, or the one above if a service manager has marked that as given away
// and has put the service's processes into a leaf of it.
func delegated(own string) string {
	above := filepath.Dir(own)
	for _, mark := range []string{"trusted.delegate", "user.delegate"} {
		var value [2]byte
		if n, err := unix.Getxattr(above, mark, value[:]); err == nil && string(value[:n]) == "1" {
			return above
		}
	}
	return own
}

// Sweep implements Cgroups. The kernel removes no group that has a process.
func (h *hierarchy) Sweep(keep func(name string) bool) (left bool) {
	for _, base := range append(slices.Collect(maps.Values(h.bases)), h.disk) {
		entries, err := os.ReadDir(base)
		if err != nil {
			continue // it was removed
		}
		for _, e := range entries {
			if e.IsDir() && !keep(e.Name()) {
				err := os.Remove(filepath.Join(base, e.Name()))
				left = left || err != nil && !errors.Is(err, fs.ErrNotExist)
			}
		}
	}
	return left
}

// Make implements Cgroups.
func (h *hierarchy) Make(name string, l Limits) (Group, error) {
	g := &group{version: h.version, slow: h.slow(name)}
	for _, c := range controllers {
		dir := filepath.Join(h.bases[c], name)
		if err := mkdir(dir); err != nil {
			g.Remove()
			return nil, err
		}
		if !slices.Contains(g.dirs, dir) {
			g.dirs = append(g.dirs, dir)
			if home := h.homes[c]; home != "" {
				g.enter, g.leave = append(g.enter, filepath.Join(dir, "tasks")), append(g.leave, filepath.Join(home, "tasks"))
			}
		}
		for _, s := range settings(h.version, c, l) {
			if err := write(dir, s.file, s.value); err != nil && !s.optional {
				g.Remove()
				return nil, err
			}
		}
	}
	return g, nil
}

// Close implements Cgroups.
func (h *hierarchy) Close() error {
	g := &group{slow: h.disk}
	for _, base := range h.bases {
		if !slices.Contains(g.dirs, base) {
			g.dirs = append(g.dirs, base)
		}
	}
	g.Remove()
	h.comeBack()
	return nil
}

type setting struct {
	file, value string
	optional    bool
}

func settings(version, controller string, l Limits) []setting {
	memory, pids := strconv.FormatInt(l.Memory, 10), strconv.Itoa(l.Pids)
	switch version + controller {
	case "v1memory":
		return []setting{{file: "memory.limit_in_bytes", value: memory}, {file: "memory.swappiness", value: "0", optional: true}}
	case "v2memory":
		return []setting{{file: "memory.max", value: memory}, {file: "memory.oom.group", value: "1", optional: true},
			{file: "memory.swap.max", value: "0", optional: true}}
	case "v1pids", "v2pids":
		return []setting{{file: "pids.max", value: pids}}
	case "v1cpu": // 1024 shares are one; at least 2
		return []setting{{file: "cpu.shares", value: strconv.Itoa(max(2, l.CPUWeight*1024/100))}}
	default:
		return []setting{{file: "cpu.weight", value: strconv.Itoa(l.CPUWeight)}}
	}
}

type group struct {
	version string
	dirs    []string
	slow    string // see hierarchy.slow

	enter, leave []string
}

func (g *group) Version() string { return g.version }

func (g *group) Dirs() []string { return g.dirs }

func (g *group) Add(pid int) error {
	for _, d := range g.dirs {
		if err := write(d, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Visit implements Group. Version 2 moves whole processes only, or makes them
// in a group by a call that the runtime does not combine with a forker.
func (g *group) Visit() (enter, leave []string) { return g.enter, g.leave }

// Remove retries for a moment: the kernel frees a group a little after its last
// process was waited for.
func (g *group) Remove() {
	for _, d := range append(slices.Clone(g.dirs), g.slow) {
		for range 20 {
			if err := os.Remove(d); err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
