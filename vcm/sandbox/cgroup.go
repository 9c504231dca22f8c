package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const boundedBy = "memory, tasks and processor bounded by a control group"

// unbounded is from where on a limit of memory is none.
const unbounded = 1 << 60

// bound is what one controller must limit, in the file of each version.
type bound struct {
	controller, v1, v2 string
	check              func(value string) error
}

func bounds() []bound {
	return []bound{
		{"memory", "memory.limit_in_bytes", "memory.max", below(unbounded)},
		{"pids", "pids.max", "pids.max", below(unbounded)},
		{"cpu", "cpu.shares", "cpu.weight", below(unbounded)}, // a share, whatever its size
	}
}

func below(most int64) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n >= most {
			return fmt.Errorf("%s is no limit", value)
		}
		return nil
	}
}

// ownBounds reads from the kernel what the process's control groups limit. It
// must run before the root is changed. The text says what was found in any case.
func ownBounds() (text string, err error) {
	own, err := readFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	all, err := readFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	mounts := groupMounts(string(all))
	var found []string
	var missing []error
	for _, b := range bounds() {
		file := groupFile(string(own), mounts, b)
		if file == "" {
			missing = append(missing, fmt.Errorf("no group of its own bounds %s", b.controller))
			continue
		}
		value, err := readFile(file)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		name, v := filepath.Base(file), strings.TrimSpace(string(value))
		found = append(found, name+" = "+v)
		if err := b.check(v); err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", name, err))
		}
	}
	return strings.Join(found, ", "), errors.Join(missing...)
}

// groupFile is what bounds the process in a controller, "" if its group is the
// root of the hierarchy, which limits nothing.
func groupFile(own string, mounts []groupMount, b bound) string {
	for line := range strings.SplitSeq(strings.TrimSpace(own), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 || f[2] == "/" {
			continue
		}
		controller, name := b.controller, b.v1
		if f[0] == "0" {
			controller, name = "", b.v2
		} else if !strings.Contains(","+f[1]+",", ","+b.controller+",") {
			continue
		}
		for _, m := range mounts {
			if dir := m.shows(controller, f[2]); dir != "" {
				if file := filepath.Join(dir, name); unix.Access(file, unix.F_OK) == nil {
					return file
				}
			}
		}
	}
	return ""
}

// groupMount is a hierarchy of control groups that can be seen.
type groupMount struct {
	controllers string // of version 1, between commas; "" is version 2
	root, point string // which folder of the hierarchy appears where
}

// groupMounts picks those of a list of mounts.
func groupMounts(mountinfo string) (out []groupMount) {
	for line := range strings.SplitSeq(mountinfo, "\n") {
		left, right, ok := strings.Cut(line, " - ")
		if !ok || !strings.HasPrefix(right, "cgroup") {
			continue
		}
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 3 {
			continue
		}
		m := groupMount{root: strings.TrimSuffix(l[3], "/"), point: l[4]}
		if r[0] == "cgroup" {
			m.controllers = "," + r[2] + ","
		}
		out = append(out, m)
	}
	return out
}

// shows is where path appears of a controller's hierarchy, version 2 without
// one; "" if it does not.
func (m groupMount) shows(controller, path string) string {
	if (controller == "") != (m.controllers == "") || !strings.Contains(m.controllers, ","+controller+",") && controller != "" {
		return ""
	}
	if rest, inside := strings.CutPrefix(path, m.root); inside {
		return filepath.Join(m.point, rest)
	}
	return ""
}
