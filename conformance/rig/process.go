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

const (
	// OrphanGrace is how long the VCMs of an orchestrator that was killed serve on
	// in a rig, unless its orchestrator is told otherwise: nothing is left behind if
	// the rig's owner is killed.
	OrphanGrace = 15 * time.Second
	// orphanTimeout is how long their processes may be there in all.
	orphanTimeout = OrphanGrace + 15*time.Second
)

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

// VCMs are the processes of VCMs that run now. They are children of a process of
// its own, which outlives an orchestrator that is killed.
func (r *Rig) VCMs() []Process {
	var alive []Process
	for _, d := range r.Daemons() {
		for _, p := range r.note(d) {
			if !slices.Contains(alive, p) {
				alive = append(alive, p)
			}
		}
	}
	return slices.DeleteFunc(alive, func(p Process) bool {
		words, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "cmdline"))
		return err != nil || !strings.HasPrefix(string(words), "vcmd ")
	})
}

// Of reports whether p is the process of the VCM.
func (p Process) Of(uuid string) bool {
	words, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "cmdline"))
	return err == nil && strings.TrimRight(string(words), "\x00") == "vcmd "+uuid
}

// note remembers the children of a daemon, so that Stop can prove that they
// have ended, and returns those that are alive, with all that were noted before.
func (r *Rig) note(d *Daemon) []Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	var pids []int
	select {
	case <-d.done: // its number may be another's by now
	default:
		pids = append(pids, d.PID())
	}
	for p := range r.children {
		if p.Alive() {
			pids = append(pids, p.PID)
		}
	}
	for _, p := range descendants(pids...) {
		r.children[p] = true
	}
	var alive []Process
	for p := range r.children {
		if p.Alive() {
			alive = append(alive, p)
		}
	}
	return alive
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

// descendants are the living processes below those.
func descendants(pids ...int) []Process {
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
	for next := slices.Clone(pids); len(next) > 0; next = next[1:] {
		for _, p := range children[next[0]] {
			if !slices.Contains(out, p) {
				out, next = append(out, p), append(next, p.PID)
			}
		}
	}
	return out
}

// Copies counts the living processes of a VCM on this host.
func Copies(uuid string) (n int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !(Process{PID: pid}).Of(uuid) {
			continue
		}
		if s, err := readStat(pid); err == nil && s.state != "Z" && s.state != "X" {
			n++
		}
	}
	return n
}

// Forker is the process that made the VCMs and keeps them, if there is one.
func (r *Rig) Forker() (found Process, ok bool) {
	for _, d := range r.Daemons() {
		for _, p := range r.note(d) {
			words, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "cmdline"))
			if err == nil && string(words) == "vcm-forker\x00"+r.Path("platform")+"\x00" {
				found, ok = p, true
			}
		}
	}
	return found, ok
}
