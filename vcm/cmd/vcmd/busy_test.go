package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// BenchmarkVend is a VCM in its own process, eight tills and some meters: what
// it holds before and after.
func BenchmarkVend(b *testing.B) {
	r := newRig(b)
	r.isolate()
	p := r.launch()
	p.mustBeReady()
	r.equip()
	resident := func() float64 {
		var s vcmcontrol.Stats
		if _, err := p.conn.Call(b.Context(), vcmcontrol.MethodStats, nil, &s); err != nil {
			b.Fatal(err)
		}
		return float64(s.Memory) / (1 << 20)
	}
	tills := make([]*till, 8)
	for i := range tills {
		tills[i] = &till{r: r}
		if err := tills[i].connect(b.Context()); err != nil {
			b.Fatal(err)
		}
		defer tills[i].hangUp()
	}
	before := resident()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for _, c := range tills {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
				if _, err := c.vend(b.Context(), fmt.Sprint("m-", i), drn(i%1000)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
	b.ReportMetric(before, "MiB-before")
	b.ReportMetric(resident(), "MiB-after")
	p.stop(vcmcontrol.Stop{Force: true, Drain: 1000})
}
