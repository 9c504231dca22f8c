// Package neighbour measures what the clients of a VCM notice of another VCM on
// the same unit.
package neighbour

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Till vends one token after another, with pauses as a shop has them.
type Till struct {
	Client *vending.Client
	Meters []*prismtoken1.MeterConfigIn

	next int
}

// pause is short for a shop, so that a few seconds tell the slowest of a hundred calls.
const pause = 3 * time.Millisecond

// Vend vends until ctx ends. A call that fails is an error.
func (t *Till) Vend(ctx context.Context) (Latency, error) {
	var took []time.Duration
	for ctx.Err() == nil {
		meter := t.Meters[t.next%len(t.Meters)]
		t.next++
		began := time.Now()
		// Not of ctx: the last call is let end.
		tokens, err := t.Client.API.IssueCreditToken(context.WithoutCancel(ctx), vending.MessageID(), t.Client.Token, meter, 0, 10, 0, 0)
		if err == nil && len(tokens) == 0 {
			err = errors.New("no token")
		}
		if err != nil {
			return Latency{}, fmt.Errorf("token %d of the quiet VCM: %w", len(took), vending.Error("issue", err))
		}
		took = append(took, time.Since(began))
		time.Sleep(pause)
	}
	return summary(took), nil
}

// Latency sums up what a till saw.
type Latency struct {
	Calls         int
	P50, P99, Max time.Duration
}

func summary(took []time.Duration) Latency {
	n := len(took)
	if n == 0 {
		return Latency{}
	}
	slices.Sort(took)
	return Latency{Calls: n, P50: took[n/2], P99: took[min(n-1, n*99/100)], Max: took[n-1]}
}

// Over is the ratio of the 99th percentiles.
func (l Latency) Over(alone Latency) float64 { return float64(l.P99) / float64(max(alone.P99, 1)) }

func (l Latency) String() string {
	return fmt.Sprintf("%d tokens, p50 %.2f ms, p99 %.2f ms, max %.2f ms", l.Calls, ms(l.P50), ms(l.P99), ms(l.Max))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Beyond reports whether l is out of proportion even for a machine on which other
// tests run. The budget is a ratio of 2; what is printed tells on an idle one.
func (l Latency) Beyond(alone Latency) bool {
	return l.P99 > 250*time.Millisecond && l.Over(alone) > 40
}
