package scale

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/clock"
)

// Memory is what N processes and the whole machine use.
type Memory struct {
	PSS, Private, PageTables int64 // sums over the VCMs' processes
	Processes                int
	Daemons                  int64 // PSS of orchestratord and hsmd
	Available                int64 // of the machine
}

// available is the machine's free memory and what it can free at once.
func available() (int64, error) {
	f, err := fields("/proc/meminfo")
	return f["MemAvailable"], err
}

// fields reads a file of "Name: number kB" lines.
func fields(path string) (map[string]int64, error) {
	p, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	lines := bufio.NewScanner(bytes.NewReader(p))
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		words := strings.Fields(rest)
		if !ok || len(words) == 0 {
			continue
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			continue
		}
		if len(words) > 1 && words[1] == "kB" {
			n <<= 10
		}
		out[name] = n
	}
	return out, nil
}

// daemons are the processes of a unit that are not VCMs'.
type daemons struct {
	orchestratord, hsmd int
	state               string // the orchestrator's folder
}

// memory adds up the VCMs' processes, children of the forker, and the daemons.
func memory(d daemons) (m Memory, err error) {
	if m.Available, err = available(); err != nil {
		return m, err
	}
	children, forkers, err := d.children()
	if err != nil {
		return m, err
	}
	for _, pid := range children {
		f, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return m, err
		}
		st, err := fields(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return m, err
		}
		m.PSS += f["Pss"]
		m.Private += f["Private_Clean"] + f["Private_Dirty"]
		m.PageTables += st["VmPTE"]
	}
	m.Processes = len(children)
	for _, pid := range append(forkers, d.orchestratord, d.hsmd) {
		f, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return m, err
		}
		m.Daemons += f["Pss"]
	}
	return m, nil
}

// parentOf returns who made a process.
func parentOf(pid int) (int, error) {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may hold anything.
	words := strings.Fields(string(p[bytes.LastIndexByte(p, ')')+1:]))
	if len(words) < 2 {
		return 0, fmt.Errorf("stat of %d has %d fields", pid, len(words))
	}
	return strconv.Atoi(words[1])
}

// forkerName is the first word of the process that makes and keeps the others; the
// second one is the orchestrator's folder.
const forkerName = "vcm-forker"

// children returns the VCMs' processes, and the processes that made them.
func (d daemons) children() (vcms, forkers []int, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, nil, err
	}
	parents := map[int]int{}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		parent, err := parentOf(pid)
		if err != nil { // it has just ended
			continue
		}
		parents[pid] = parent
		if words, _ := os.ReadFile(filepath.Join(dir, "cmdline")); string(words) == forkerName+"\x00"+d.state+"\x00" {
			forkers = append(forkers, pid)
		}
	}
	for pid, parent := range parents {
		if slices.Contains(forkers, parent) {
			vcms = append(vcms, pid)
		}
	}
	slices.Sort(vcms)
	return vcms, forkers, nil
}

// cpu is the processor time that processes have used so far.
type cpu struct{ vcms, orchestratord, hsmd time.Duration }

func (c cpu) minus(d cpu) cpu {
	return cpu{c.vcms - d.vcms, c.orchestratord - d.orchestratord, c.hsmd - d.hsmd}
}

// processorTime adds up the VCMs that live, and the daemons.
func processorTime(d daemons) (c cpu, err error) {
	children, forkers, err := d.children()
	if err != nil {
		return c, err
	}
	for _, pid := range children {
		t, err := clock.OfProcess(pid)
		if err != nil {
			return c, err
		}
		c.vcms += t
	}
	to := map[int]*time.Duration{d.orchestratord: &c.orchestratord, d.hsmd: &c.hsmd}
	for _, pid := range forkers {
		to[pid] = &c.orchestratord
	}
	for pid, to := range to {
		t, err := clock.OfProcess(pid)
		if err != nil {
			return c, err
		}
		*to += t
	}
	return c, nil
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}
