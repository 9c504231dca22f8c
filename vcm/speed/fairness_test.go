package speed_test

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/vcm/speed"
)

// flood is a VCM that was taken over: it does without a Limiter and asks for
// everything, from many threads, without a pause.
func flood(ctx context.Context, c *hsmapi.Channel, tokens, calls *atomic.Int64) {
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for ctx.Err() == nil {
				got, err := c.Lease(ctx, 1<<20)
				if err != nil {
					continue // the end
				}
				tokens.Add(int64(got.Tokens))
				calls.Add(1)
			}
		})
	}
	all.Wait()
}

// A VCM of each rating on a unit at high speed wants all it can get, and so does
// one that was taken over, of the highest rating: each of the others has what it
// is guaranteed and the share that its rating stands for, the hostile one no more
// than its own.
func TestAHostileVCMTakesNoMoreThanItsShare(t *testing.T) {
	t.Parallel()
	u := unit(t)
	features := licensing.BuiltIn | licensing.HSMSpeed2
	const active = 4
	type vcm struct {
		name  string
		speed hsmapi.Speed
		got   atomic.Int64
	}
	rated := func(name string, bit licensing.Features) *vcm {
		s := features.ShareOf(bit, active)
		return &vcm{name: name, speed: hsmapi.Speed{Guaranteed: s.Guaranteed, Ceiling: s.Ceiling, Unit: features.Rating().Capacity()}}
	}
	honest := []*vcm{rated("high", licensing.HSMSpeed2), rated("mid", licensing.HSMSpeed1), rated("base", licensing.HSMSpeed0)}
	hostile := rated("hostile, high", licensing.HSMSpeed2)
	var calls atomic.Int64
	var ceilings float64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for _, v := range honest {
		ceilings += float64(v.speed.Ceiling)
		l := speed.New(open(t, u, v.speed), v.speed.Ceiling, 0)
		all.Go(func() { _ = l.Run(ctx) })
		for range 16 {
			all.Go(func() {
				for l.Take(ctx) == nil {
					v.got.Add(1)
				}
			})
		}
	}
	ceilings += float64(hostile.speed.Ceiling)
	c := open(t, u, hostile.speed)
	all.Go(func() { flood(ctx, c, &hostile.got, &calls) })

	time.Sleep(500 * time.Millisecond) // what was saved up is spent
	counts := func() (out [active]int64) {
		for i, v := range append(honest, hostile) {
			out[i] = v.got.Load()
		}
		return out
	}
	before, callsBefore, began := counts(), calls.Load(), time.Now()
	time.Sleep(3 * time.Second)
	after, callsAfter, elapsed := counts(), calls.Load(), time.Since(began).Seconds()
	cancel()
	all.Wait()

	whole, total := float64(features.Rating().Capacity()), 0.0
	for i, v := range append(honest, hostile) {
		rate := float64(after[i]-before[i]) / elapsed
		fair := whole * float64(v.speed.Ceiling) / ceilings
		total += rate
		t.Logf("%-13s guaranteed %5d, ceiling %5d: %6.0f tokens a second, %.2f of its share", v.name, v.speed.Guaranteed, v.speed.Ceiling, rate, rate/fair)
		// The machine is shared with other tests: some less is not unfair.
		if v != hostile && rate < math.Max(0.9*float64(v.speed.Guaranteed), 0.75*fair) {
			t.Errorf("%s gets %.0f tokens a second: guaranteed are %d, its share is %.0f", v.name, rate, v.speed.Guaranteed, fair)
		}
		if v == hostile && rate > 1.25*fair {
			t.Errorf("the hostile VCM gets %.0f tokens a second, its share is %.0f", rate, fair)
		}
	}
	t.Logf("in all %.0f of %.0f; the hostile VCM had %.0f calls a second answered", total, whole, float64(callsAfter-callsBefore)/elapsed)
	if total > 1.1*whole {
		t.Errorf("%.0f tokens a second in all, the unit is rated for %.0f", total, whole)
	}
	if perSecond := float64(callsAfter-callsBefore) / elapsed; perSecond > 1200 {
		t.Errorf("the unit answers %.0f calls a second of one VCM", perSecond)
	}
}

// One that vends now and then does not notice that the unit is busy: its tokens
// were leased before.
func TestAModestVCMDoesNotWait(t *testing.T) {
	t.Parallel()
	const answer = 20 * time.Millisecond
	slow := &lessor{answer: func(n int) (hsmapi.Leased, error) {
		time.Sleep(answer)
		return hsmapi.Leased{Tokens: n}, nil
	}}
	l := speed.New(slow, 200, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = l.Run(ctx) })
	defer run.Wait()
	defer cancel()
	if err := l.Take(ctx); err != nil { // the first one has to
		t.Fatal(err)
	}
	waited := 0
	const tokens = 50
	for range tokens {
		time.Sleep(10 * time.Millisecond)
		began := time.Now()
		if err := l.Take(ctx); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > answer/2 {
			waited++
		}
	}
	if waited > tokens/10 {
		t.Errorf("%d of %d calls waited for the unit", waited, tokens)
	}
}

// Many callers at a ceiling do not make a call of the unit for each token.
func TestAUsedUpRatingIsNotAskedForTokenByToken(t *testing.T) {
	t.Parallel()
	began := time.Now()
	const rate = 1000
	var given int // by one caller at a time, as the Limiter promises
	unit := &lessor{}
	unit.answer = func(n int) (hsmapi.Leased, error) {
		n = min(n, max(0, int(time.Since(began).Seconds()*rate)-given))
		given += n
		return hsmapi.Leased{Tokens: n, Retry: 5}, nil
	}
	l := speed.New(unit, 200, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = l.Run(ctx) })
	var taken atomic.Int64
	for range 32 {
		all.Go(func() {
			for l.Take(ctx) == nil {
				taken.Add(1)
			}
		})
	}
	time.Sleep(time.Second)
	cancel()
	all.Wait()
	if n := unit.calls.Load(); n > 250 {
		t.Errorf("%d calls of the unit for %d tokens", n, taken.Load())
	}
	if n := taken.Load(); n < rate/2 {
		t.Errorf("%d tokens in a second, the rating is %d", n, rate)
	}
}
