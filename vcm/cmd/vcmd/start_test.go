package main

import (
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// BenchmarkStart measures a VCM in namespaces from fork to ready, and what it
// holds when idle.
func BenchmarkStart(b *testing.B) {
	r := newRig(b)
	r.isolate()
	var total time.Duration
	var memory, processes int64
	for b.Loop() {
		begin := time.Now()
		p := r.launch()
		p.mustBeReady()
		total += time.Since(begin)
		time.Sleep(100 * time.Millisecond)
		var s vcmcontrol.Stats
		if _, err := p.conn.Call(b.Context(), vcmcontrol.MethodStats, nil, &s); err != nil {
			b.Fatal(err)
		}
		memory += s.Memory
		processes++
		p.stop(vcmcontrol.Stop{Drain: 1000})
	}
	b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "ms/start")
	b.ReportMetric(float64(memory)/float64(processes)/(1<<20), "MiB-resident")
}
