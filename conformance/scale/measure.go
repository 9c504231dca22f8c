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

// memory adds up the VCMs' processes, children of orchestratord, and the daemons.
func memory(orchestratord, hsmd int) (m Memory, err error) {
	if m.Available, err = available(); err != nil {
		return m, err
	}
	children, forkers, err := childrenOf(orchestratord)
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
	for _, pid := range append(forkers, orchestratord, hsmd) {
		f, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return m, err
		}
		m.Daemons += f["Pss"]
	}
	return m, nil
}

// stat is a process's parent and processor time.
type stat struct {
	parent int
	cpu    time.Duration
}

func readStat(pid int) (s stat, err error) {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, err
	}
	// The name, in brackets, may hold anything.
	words := strings.Fields(string(p[bytes.LastIndexByte(p, ')')+1:]))
	if len(words) < 13 {
		return s, fmt.Errorf("stat of %d has %d fields", pid, len(words))
	}
	number := func(i int) int { n, _ := strconv.Atoi(words[i]); return n }
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	return stat{parent: number(1), cpu: time.Duration(number(11)+number(12)) * tick}, nil
}

// forkerName is what the orchestrator calls the child that makes the others.
const forkerName = "vcm-forker"

// childrenOf returns the VCMs' processes, and the processes that make them.
func childrenOf(orchestratord int) (vcms, forkers []int, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, nil, err
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		if err != nil || s.parent != orchestratord { // or it has just ended
			continue
		}
		if name, _ := os.ReadFile(filepath.Join(d, "cmdline")); string(name) == forkerName+"\x00" {
			forkers = append(forkers, pid)
		} else {
			vcms = append(vcms, pid)
		}
	}
	return vcms, forkers, nil
}

// cpu is the processor time that processes have used so far.
type cpu struct{ vcms, orchestratord, hsmd time.Duration }

func (c cpu) minus(d cpu) cpu {
	return cpu{c.vcms - d.vcms, c.orchestratord - d.orchestratord, c.hsmd - d.hsmd}
}

// processorTime adds up the VCMs that live, and the daemons.
func processorTime(orchestratord, hsmd int) (c cpu, err error) {
	children, forkers, err := childrenOf(orchestratord)
	if err != nil {
		return c, err
	}
	for _, pid := range children {
		s, err := readStat(pid)
		if err != nil {
			return c, err
		}
		c.vcms += s.cpu
	}
	daemons := map[int]*time.Duration{orchestratord: &c.orchestratord, hsmd: &c.hsmd}
	for _, pid := range forkers {
		daemons[pid] = &c.orchestratord
	}
	for pid, to := range daemons {
		s, err := readStat(pid)
		if err != nil {
			return c, err
		}
		*to += s.cpu
	}
	return c, nil
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}
