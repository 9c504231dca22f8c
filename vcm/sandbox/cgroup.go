package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	var found []string
	var missing []error
	for _, b := range bounds() {
		dir, file := groupDir(string(own), string(mounts), b)
		if dir == "" {
			missing = append(missing, fmt.Errorf("no group of its own bounds %s", b.controller))
			continue
		}
		value, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			missing = append(missing, err)
			continue
		}
		v := strings.TrimSpace(string(value))
		found = append(found, file+" = "+v)
		if err := b.check(v); err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", file, err))
		}
	}
	return strings.Join(found, ", "), errors.Join(missing...)
}

// groupDir is the folder of the process's group for a controller and its file,
// "" if that is the root of the hierarchy, which limits nothing.
func groupDir(own, mounts string, b bound) (dir, file string) {
	for line := range strings.SplitSeq(strings.TrimSpace(own), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 || f[2] == "/" {
			continue
		}
		kind, option, name := "cgroup", b.controller, b.v1
		if f[0] == "0" {
			kind, option, name = "cgroup2", "", b.v2
		} else if !strings.Contains(","+f[1]+",", ","+b.controller+",") {
			continue
		}
		if at := groupMount(mounts, kind, option, f[2]); at != "" {
			if _, err := os.Stat(filepath.Join(at, name)); err == nil {
				return at, name
			}
		}
	}
	return "", ""
}

// groupMount is where path of a hierarchy appears.
func groupMount(mounts, kind, option, path string) string {
	for line := range strings.SplitSeq(mounts, "\n") {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || r[0] != kind {
			continue
		}
		if option != "" && !strings.Contains(","+r[2]+",", ","+option+",") {
			continue
		}
		root := strings.TrimSuffix(l[3], "/")
		if rest, inside := strings.CutPrefix(path, root); inside {
			return filepath.Join(l[4], rest)
		}
	}
	return ""
}
