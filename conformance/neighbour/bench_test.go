package neighbour_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/neighbour"
)

// BenchmarkNeighbour is the slowest hundredth of a VCM's calls beside each noise.
// Each is measured between two halves of a silence, and its ratios are to those;
// the budget of p99-ratio is 2. The program starts a platform each time it is run,
// so that rounds are as different as platforms are.
func BenchmarkNeighbour(b *testing.B) {
	p := newPair(b, 4*time.Millisecond)
	report := func(b *testing.B, alone, beside []time.Duration) {
		a, l := neighbour.Summary(alone), neighbour.Summary(beside)
		b.ReportMetric(float64(l.P99), "ns/op")
		b.ReportMetric(l.Over(a), "p99-ratio")
		b.ReportMetric(float64(l.P50)/float64(a.P50), "p50-ratio")
		b.ReportMetric(1, "ref:Neighbour/alone")
	}
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			report(b, p.vend(b, *lasts), p.vend(b, *lasts))
		}
	})
	for _, n := range noises(manyConnections) {
		b.Run(n.name, func(b *testing.B) {
			for b.Loop() {
				alone, beside, said := p.beside(b, n, *lasts)
				report(b, alone, beside)
				if strings.Contains(said, "ended") {
					b.Log(said)
				}
			}
		})
	}
}
