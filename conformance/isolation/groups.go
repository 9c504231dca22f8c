package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// groups has two VCMs want all processors, one with eight times the threads of
// the other, and looks at what the kernel has of their control groups before,
// meanwhile and afterwards. Their orchestrator is in a group of its own, as under
// a service manager: beside one another in it, threads are what counts.
func (s *Suite) groups(ctx context.Context) error {
	if os.Geteuid() != 0 {
		s.print("isolation: groups: nobody can give none; the report says so and the level is rootless\n")
		return nil
	}
	version, err := s.shares(ctx, "nothing but the limits of a process", strings.Join(layerNames(), "\n"), false)
	if err != nil {
		return err
	}
	if version != "" {
		s.hole("a VCM without a control group is in one of %s", version)
	}
	version, err = s.shares(ctx, "a control group each", "", true)
	if err != nil {
		return err
	}
	if version == "" {
		s.hole("there is no control group to be had")
	}
	return nil
}

// fewThreads and manyThreads are how many of its threads each of two VCMs keeps
// busy: without groups the first gets a ninth of the processors.
const (
	fewThreads  = 4
	manyThreads = 8 * fewThreads
	burning     = 4 * time.Second
)

// shares measures how two VCMs share the processors and returns the version of
// their control groups. fair is how it has to be, or must not be.
func (s *Suite) shares(ctx context.Context, what, without string, fair bool) (version string, err error) {
	name := fmt.Sprintf("isolation-%d-groups-%t", os.Getpid(), fair)
	bin, err := s.wrapped(hostileDir(s.Bin), name, "enter", name)
	if err != nil {
		return "", err
	}
	p, err := open(ctx, bin, s.dir(fmt.Sprintf("groups-%t", fair)), s.log, "--isolation-floor", "process")
	if err != nil {
		return "", err
	}
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		return p.Stop()
	}
	defer func() { err = errors.Join(err, stop()) }()
	var pair []*vcm
	for _, name := range []string{"few", "many"} {
		v, err := p.create(ctx, name, without)
		if err != nil {
			return "", err
		}
		if err := v.start(ctx); err != nil {
			return "", err
		}
		pair = append(pair, v)
	}
	if level := pair[0].report.IsolationLevel; fair && level != "full" {
		s.hole("with control groups the level is %s: lacking %v, %s", level, pair[0].lacking(), pair[0].line(cgroup))
	}
	if !has(pair[0].lacking(), cgroup) {
		version, _, _ = strings.Cut(strings.TrimSpace(strings.TrimPrefix(pair[0].line(cgroup), "enforced")), ":")
	}
	if !s.Short { // where other tests run beside this one, shares tell nothing
		if err := s.measure(ctx, what, pair, fair); err != nil {
			return "", err
		}
	}
	// What is left behind: of a VCM that was killed, of one that was stopped, of all.
	if err := pair[1].process.Kill(); err != nil {
		return "", err
	}
	for _, v := range pair {
		if err := v.stop(ctx); err != nil {
			return "", err
		}
	}
	for _, v := range pair {
		for _, dir := range named(v.uuid) {
			s.hole("the group %s is left of a VCM that was stopped", dir)
		}
	}
	if err := stop(); err != nil {
		return "", err
	}
	return version, s.leave(name, version)
}

// measure has both want all processors, again if something else may have had them.
func (s *Suite) measure(ctx context.Context, what string, pair []*vcm, fair bool) error {
	const bound, tries = 0.27, 3 // between a ninth and a half
	var share float64
	for range tries {
		used, err := burn(ctx, pair)
		if err != nil {
			return err
		}
		share = used[0].Seconds() / (used[0] + used[1]).Seconds()
		s.print("isolation: processors, %s: %d threads against %d get %.0f %% (%.1f s and %.1f s)\n", what, fewThreads, manyThreads, 100*share, used[0].Seconds(), used[1].Seconds())
		if fair == (share > bound) {
			return nil
		}
	}
	if fair {
		s.hole("a VCM with many threads takes the processors of another: %.0f %% are left", 100*share)
	} else {
		s.hole("that VCMs share the processors evenly proves nothing: without control groups they do, too (%.0f %%)", 100*share)
	}
	return nil
}

// leave removes the groups that an orchestrator was in. It must have left them as
// it found them.
func (s *Suite) leave(name, version string) error {
	dirs := named(name)
	if len(dirs) == 0 {
		return fmt.Errorf("the orchestrator was in no group %s", name)
	}
	for _, dir := range dirs {
		if err := os.Remove(filepath.Join(dir, leafName)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.IsDir() {
				s.hole("the group %s is left of an orchestrator that has ended", filepath.Join(dir, e.Name()))
			}
		}
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	if version != "" {
		s.print("isolation: groups of %s are gone with their VCMs and their orchestrator\n", version)
	}
	return nil
}

// burn keeps the threads of both VCMs busy and returns the time that the kernel
// gave to each.
func burn(ctx context.Context, pair []*vcm) (used [2]time.Duration, err error) {
	var before [2]time.Duration
	for i, v := range pair {
		if before[i], err = processorTime(v.process.PID); err != nil {
			return used, err
		}
	}
	done := make(chan error, len(pair))
	for i, v := range pair {
		go func() {
			_, _, err := v.order(ctx, "burn", map[string]string{"threads": strconv.Itoa([]int{fewThreads, manyThreads}[i]), "ms": strconv.FormatInt(burning.Milliseconds(), 10)})
			done <- err
		}()
	}
	for range pair {
		err = errors.Join(err, <-done)
	}
	for i, v := range pair {
		after, errAfter := processorTime(v.process.PID)
		used[i], err = after-before[i], errors.Join(err, errAfter)
	}
	return used, err
}

// processorTime is what a process has used, in its own words to the kernel.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	at := strings.LastIndexByte(string(text), ')') // the name may hold anything
	f := strings.Fields(string(text)[at+1:])
	if at < 0 || len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has an unknown form", pid)
	}
	var ticks int64
	for _, field := range f[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const tick = time.Second / 100
	return time.Duration(ticks) * tick, nil
}

// named are the control groups of a name, wherever they are.
func named(name string) (dirs []string) {
	for _, at := range hierarchies() {
		_ = filepath.WalkDir(at, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() && e.Name() == name {
				dirs = append(dirs, path)
			}
			return nil // groups come and go
		})
	}
	return dirs
}

// hierarchies are where the kernel shows control groups of memory, processes and
// processors.
func hierarchies() (dirs []string) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(mounts)) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 3 {
			continue
		}
		controllers := strings.Split(r[2], ",")
		switch r[0] {
		case "cgroup2":
			text, _ := os.ReadFile(filepath.Join(l[4], "cgroup.subtree_control"))
			controllers = strings.Fields(string(text))
		case "cgroup":
		default:
			continue
		}
		if has(controllers, "memory") || has(controllers, "pids") || has(controllers, "cpu") {
			dirs = append(dirs, l[4])
		}
	}
	return dirs
}

// Enter makes a control group in every hierarchy, enters it and becomes the given
// program, as a service manager would.
func Enter(name string, program []string) error { return enter(name, "", program) }

// EnterBelow does as a service manager does that gives a group away and puts the
// program into a leaf of it (for systemd, DelegateSubgroup=).
func EnterBelow(name string, program []string) error { return enter(name, leafName, program) }

const leafName = "service"

func enter(name, leaf string, program []string) error {
	at := hierarchies()
	if len(at) == 0 {
		return errors.New("enter: no hierarchy of control groups")
	}
	for _, dir := range at {
		group := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(group, leaf), 0o755); err != nil {
			return err
		}
		if leaf != "" {
			// The first version's groups take no marks, and need none.
			_ = unix.Setxattr(group, "trusted.delegate", []byte("1"), 0)
		}
		if err := os.WriteFile(filepath.Join(group, leaf, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return err
		}
	}
	return become(program)
}
