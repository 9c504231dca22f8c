package rig

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// orphanTimeout is how long a VCM's process may outlive its orchestrator.
const orphanTimeout = 15 * time.Second

// Process is one process of a VCM.
type Process struct {
	PID     int
	started string // tells it from a later process of the same number
}

// Alive reports whether the process has not ended yet.
func (p Process) Alive() bool {
	now, err := readStat(p.PID)
	return err == nil && now.started == p.started && now.state != "Z" && now.state != "X"
}

// Kill ends the process with SIGKILL.
func (p Process) Kill() error {
	handle, err := os.FindProcess(p.PID) // from here on the number is not given to another
	if err != nil {
		return err
	}
	defer func() { _ = handle.Release() }()
	if !p.Alive() {
		return fmt.Errorf("process %d has ended already", p.PID)
	}
	return handle.Signal(syscall.SIGKILL)
}

// VCMs are the processes of VCMs that run now. The orchestrator has another
// process, which makes them.
func (r *Rig) VCMs() []Process {
	var alive []Process
	for _, d := range r.Daemons() {
		alive = append(alive, r.note(d)...)
	}
	return slices.DeleteFunc(alive, func(p Process) bool {
		words, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "cmdline"))
		return err != nil || !strings.HasPrefix(string(words), "vcmd ")
	})
}

// note remembers the children of a daemon, so that Stop can prove that they
// have ended, and returns those that are alive.
func (r *Rig) note(d *Daemon) []Process {
	children := descendants(d.PID())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range children {
		r.children[p] = true
	}
	return children
}

// left are the noted processes that have not ended, after some patience.
func (r *Rig) left() []Process {
	r.mu.Lock()
	left := slices.Collect(maps.Keys(r.children))
	clear(r.children)
	r.mu.Unlock()
	for end := time.Now().Add(r.orphans); ; time.Sleep(20 * time.Millisecond) {
		left = slices.DeleteFunc(left, func(p Process) bool { return !p.Alive() })
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// stat is the part of /proc/PID/stat that anybody may read and we need.
type stat struct {
	state   string
	parent  int
	started string
}

func readStat(pid int) (stat, error) {
	p, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	// The name in parentheses may hold anything; the last one closes it.
	_, rest, ok := cutLast(string(p), ")")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	parent, err := strconv.Atoi(f[1])
	return stat{state: f[0], parent: parent, started: f[19]}, err
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// descendants are the living processes below pid.
func descendants(pid int) []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]Process{}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(n); err == nil && s.state != "Z" {
			children[s.parent] = append(children[s.parent], Process{PID: n, started: s.started})
		}
	}
	var out []Process
	for next := []int{pid}; len(next) > 0; next = next[1:] {
		for _, p := range children[next[0]] {
			out, next = append(out, p), append(next, p.PID)
		}
	}
	return out
}
