// Package neighbour measures what the clients of a VCM notice of another VCM on
// the same unit.
//
// The till that vends at the quiet VCM, and the clients of the noisy one, run in
// processes of their own. The kernel tells the till when an answer arrived, so
// that its own waiting is not mistaken for the VCM's; the others have what nobody
// else wants, because in truth they run on another machine.
package neighbour

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// tills is how many connections share the calls: a slow answer shall not keep
// the next call from being made, and so from being measured.
const tills = 4

// Till vends at moments that do not depend on the answers: one call in each
// Every, at a random moment of it, so that no rhythm of the machine is met always
// or never.
type Till struct {
	Server         vending.Config
	User, Password string
	Meters         []*prismtoken1.MeterConfigIn
	Every          time.Duration

	clients []*client
	next    atomic.Int64
}

type client struct {
	*vending.Client
	conn *stamped
	free time.Time // when it would be again, had the till never waited itself
}

// SignIn connects.
func (t *Till) SignIn(ctx context.Context) error {
	for range tills {
		c := &client{}
		server := t.Server
		server.Dial = func(ctx context.Context, network, address string) (_ net.Conn, err error) {
			c.conn, err = dialStamped(ctx, network, address)
			return c.conn, err
		}
		var err error
		if c.Client, err = vending.Dial(ctx, server); err != nil {
			return err
		}
		t.clients = append(t.clients, c)
		if len(t.clients) == 1 {
			if err := c.SignIn(ctx, t.User, t.Password); err != nil {
				return err
			}
		}
		c.Token = t.clients[0].Token
	}
	return nil
}

// Close hangs up.
func (t *Till) Close() {
	for _, c := range t.clients {
		_ = c.Close()
	}
}

// Vend vends for so long and returns how long each call took, counted from when
// it was due if an answer that came late kept it from being made. A call that
// fails is an error.
func (t *Till) Vend(ctx context.Context, lasts time.Duration) ([]time.Duration, error) {
	began := time.Now()
	calls := int(lasts / t.Every)
	took := make([]time.Duration, calls)
	errs := make([]error, len(t.clients))
	var all sync.WaitGroup
	for w, c := range t.clients {
		all.Go(func() {
			for i := w; i < calls && ctx.Err() == nil && errs[w] == nil; i += len(t.clients) {
				due := began.Add(time.Duration(i)*t.Every + rand.N(t.Every))
				took[i], errs[w] = t.call(ctx, c, due)
				if errs[w] != nil {
					errs[w] = fmt.Errorf("token %d of the quiet VCM: %w", i, errs[w])
				}
			}
		})
	}
	all.Wait()
	return took, errors.Join(append(errs, ctx.Err())...)
}

// call vends when it is due and returns how long the answer took to come. An
// answer before it that was late counts, too; that the till was, does not.
func (t *Till) call(ctx context.Context, c *client, due time.Time) (time.Duration, error) {
	time.Sleep(time.Until(due))
	meter := t.Meters[int(t.next.Add(1))%len(t.Meters)]
	tokens, err := c.API.IssueCreditToken(ctx, vending.MessageID(), c.Token, meter, 0, 10, 0, 0)
	if err == nil && len(tokens) == 0 {
		err = errors.New("no token")
	}
	if err != nil {
		return 0, vending.Error("issue", err)
	}
	took, err := c.conn.took()
	return c.account(due, took), err
}

// account is how long who was due waited, if the answer took so long.
func (c *client) account(due time.Time, took time.Duration) time.Duration {
	waited := max(0, c.free.Sub(due)) + took
	c.free = due.Add(waited)
	return waited
}

// Latency sums up what a till saw.
type Latency struct {
	Calls              int
	P50, P90, P99, Max time.Duration
}

// Summary sums up.
func Summary(took []time.Duration) Latency {
	n := len(took)
	if n == 0 {
		return Latency{}
	}
	took = slices.Sorted(slices.Values(took))
	at := func(percent int) time.Duration { return took[min(n-1, n*percent/100)] }
	return Latency{Calls: n, P50: at(50), P90: at(90), P99: at(99), Max: took[n-1]}
}

// Over is the ratio of the 99th percentiles.
func (l Latency) Over(alone Latency) float64 { return float64(l.P99) / float64(max(alone.P99, 1)) }

func (l Latency) String() string {
	return fmt.Sprintf("%d tokens, p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, max %.2f ms", l.Calls, ms(l.P50), ms(l.P90), ms(l.P99), ms(l.Max))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
