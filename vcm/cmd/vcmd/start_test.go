package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// settle is how long a start's cost is added up: its first checkpoint is in it.
const settle = 1300 * time.Millisecond

// BenchmarkStart measures a VCM in namespaces from fork to ready, and what it
// costs and holds after: the first start, which makes the keys, and those after.
func BenchmarkStart(b *testing.B) {
	for _, first := range []bool{true, false} {
		name := "again"
		if first {
			name = "first"
		}
		b.Run(name, func(b *testing.B) { benchmarkStart(b, first) })
	}
}

func benchmarkStart(b *testing.B, first bool) {
	var r *rig
	if !first {
		r = newRig(b)
		r.isolate()
		r.launch().mustBeReadyAndStop()
	}
	var total time.Duration
	var ready, settled cost
	var memory int64
	for b.Loop() {
		if first {
			b.StopTimer()
			r = newRig(b)
			r.isolate()
			b.StartTimer()
		}
		_, back := r.alone()
		begin := time.Now()
		p := r.launch()
		back()
		p.mustBeReady()
		total += time.Since(begin)
		ready.add(b, p)
		time.Sleep(settle)
		settled.add(b, p)
		var s vcmcontrol.Stats
		if _, err := p.conn.Call(b.Context(), vcmcontrol.MethodStats, nil, &s); err != nil {
			b.Fatal(err)
		}
		memory += s.Memory
		p.stop(vcmcontrol.Stop{Drain: 1000})
		if first {
			r.stopUnit()
		}
	}
	n := float64(b.N)
	b.ReportMetric(total.Seconds()*1e3/n, "ms/start")
	b.ReportMetric(ready.processor.Seconds()*1e3/n, "cpu-ms/ready")
	b.ReportMetric(settled.processor.Seconds()*1e3/n, "cpu-ms/settled")
	b.ReportMetric(float64(settled.faults)/n, "faults")
	b.ReportMetric(float64(memory)/n/(1<<20), "MiB-resident")
}

// alone makes the next process as the launcher does, on one processor and with late
// timers, until back is called. home is that processor.
func (r *rig) alone() (home int, back func()) {
	r.t.Helper()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		r.t.Fatal(err)
	}
	for !all.IsSet(home) {
		home++
	}
	one.Set(home)
	runtime.LockOSThread()
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(vcmcontrol.StartSlack), 0, 0, 0); err != nil {
		r.t.Fatal(err)
	}
	r.start.Processors = nil
	for _, w := range all {
		r.start.Processors = append(r.start.Processors, uint64(w))
	}
	return home, func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // what it was
		_ = unix.SchedSetaffinity(0, &all)
		runtime.UnlockOSThread()
	}
}

// cost is what processes have used so far.
type cost struct {
	processor time.Duration
	faults    int64
}

// add reads the process's own clock and counters.
func (c *cost) add(b *testing.B, p *process) {
	b.Helper()
	pid := p.cmd.Process.Pid
	used, err := clock.OfProcess(pid)
	if err != nil {
		b.Fatal(err)
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		b.Fatal(err)
	}
	var faults int64
	words := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if _, err := fmt.Sscan(string(words[7]), &faults); err != nil {
		b.Fatal(err)
	}
	c.processor += used
	c.faults += faults
}
