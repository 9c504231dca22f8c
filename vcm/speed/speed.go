// Package speed holds a VCM to its speed rating. The rating is a guaranteed and
// a ceiling rate of tokens a second out of the unit's rated capacity, which the
// unit itself leases out (hsmapi, MethodLease): a VCM that were taken over could
// ignore this package, but then it would only be fast, not slow down others
// below what they are guaranteed.
//
// Tokens are leased some at a time, and ahead: an issuing call mostly costs one
// atomic subtraction and does not wait for the unit, which the VCMs share, nor
// for the processor that the unit needs to answer. Who finds none left waits in
// the order of coming.
package speed

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// mostLeased bounds what one lease asks for: what is leased and not used is
	// lost to the others.
	mostLeased = 1024
	// reserved is for how long at its ceiling a VCM has tokens in reserve. To one
	// that vends far less it lasts while a busy machine keeps the unit waiting.
	reserved = time.Second / 50
	// leastLeased is the smallest reserve.
	leastLeased = 4
	// span is what a lease should last for: some times the unit's answer on a
	// busy machine.
	span = 50 * time.Millisecond
	// shortest is the least pause before asking again.
	shortest = time.Millisecond
)

const noAnswer = "the HSM does not answer, so nothing was issued; try again, and ask the provider if it lasts"

// DefaultPatience is how long a call may wait for its turn: shorter than the
// time after which clients give up.
const DefaultPatience = 3 * time.Second

// Lessor gives out the unit's rated capacity; *hsmapi.Channel does.
type Lessor interface {
	Lease(ctx context.Context, tokens int) (hsmapi.Leased, error)
}

// Limiter lets issuing calls pass at the VCM's rate.
type Limiter struct {
	from     Lessor
	patience time.Duration
	least    int64 // of a lease
	left     atomic.Int64
	waiting  atomic.Int64  // callers that found nothing left
	silent   atomic.Bool   // the unit did not answer the last lease
	low      chan struct{} // has a value once the reserve is to be filled
	want     atomic.Int64  // of the next lease; set by whoever is leasing

	leasing chan struct{} // one at a time, first come, first served; guards what follows
	last    time.Time     // when something was granted last
	again   time.Time     // before that the unit has no more
}

// New returns a limiter of a VCM that may issue ceiling tokens a second, 0 for any
// number. patience 0 is DefaultPatience.
func New(from Lessor, ceiling int, patience time.Duration) *Limiter {
	if patience == 0 {
		patience = DefaultPatience
	}
	l := &Limiter{from: from, patience: patience, leasing: make(chan struct{}, 1), low: make(chan struct{}, 1)}
	l.least = mostLeased / 4
	if ceiling > 0 {
		l.least = min(max(leastLeased, int64(ceiling)*int64(reserved)/int64(time.Second)), mostLeased)
	}
	l.want.Store(l.least)
	return l
}

// Run leases ahead until ctx ends. Without it callers lease when nothing is left.
func (l *Limiter) Run(ctx context.Context) error {
	for {
		select {
		case <-l.low:
		case <-ctx.Done():
			return nil
		}
		for l.scarce() {
			pause, ok := l.fill(ctx)
			if !ok {
				break
			}
			if pause == 0 {
				continue
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// fill leases unless somebody does already, who says when the reserve is still
// low after that. ok is false when there is no more to do now.
func (l *Limiter) fill(ctx context.Context) (pause time.Duration, ok bool) {
	select {
	case l.leasing <- struct{}{}:
	default:
		return 0, false
	}
	granted, pause, err := l.lease(ctx)
	<-l.leasing
	if granted {
		l.left.Add(1) // it is nobody's yet
	}
	return pause, err == nil // callers learn of an error from their own lease
}

// scarce reports whether less than half of a lease is left.
func (l *Limiter) scarce() bool { return l.left.Load() < (l.want.Load()+1)/2 }

// hint has the reserve filled if it is low.
func (l *Limiter) hint() {
	if l.scarce() {
		select {
		case l.low <- struct{}{}:
		default:
		}
	}
}

// Take waits until the VCM may issue another token. The kind of its error is
// Limit when the rating is used up for longer than the patience, Unavailable when
// the unit does not answer.
func (l *Limiter) Take(ctx context.Context) error {
	defer l.hint()
	if l.takeLeft() {
		return nil
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	timer := time.NewTimer(l.patience)
	defer timer.Stop()
	select {
	case l.leasing <- struct{}{}:
		defer func() { <-l.leasing }()
	case <-timer.C:
		return l.givenUp()
	case <-ctx.Done():
		return errkind.Errorf(errkind.Unavailable, "the service is stopping")
	}
	for !l.takeLeft() { // somebody before us may have leased more than his own
		granted, pause, err := l.lease(ctx)
		if granted || err != nil {
			return err
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-timer.C:
			again.Stop()
			return l.givenUp()
		case <-ctx.Done():
			again.Stop()
			return errkind.Errorf(errkind.Unavailable, "the service is stopping")
		}
	}
	return nil
}

// givenUp says why nothing came within the patience.
func (l *Limiter) givenUp() error {
	if l.silent.Load() {
		return errkind.Errorf(errkind.Unavailable, noAnswer)
	}
	return errkind.Errorf(errkind.Limit,
		"the speed rating of this VCM is used up: no capacity within %s; vend slower, or ask the provider for a higher rating", l.patience)
}

func (l *Limiter) takeLeft() bool {
	for {
		n := l.left.Load()
		if n <= 0 {
			return false
		}
		if l.left.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// lease asks for as much as the VCM uses in a span, by how long the last lease
// lasted, and for as much as there are callers. If something was granted, one
// token of it is the caller's; else pause is how long to wait before the next
// lease: who asked at once whenever the unit has given less than that would get
// its rating token by token. The caller holds leasing.
func (l *Limiter) lease(ctx context.Context) (granted bool, pause time.Duration, err error) {
	if pause := time.Until(l.again); pause > 0 {
		return false, pause, nil
	}
	want := max(l.want.Load(), min(l.waiting.Load(), mostLeased))
	// A lease takes microseconds: a unit that is silent for longer is not there, and
	// those who wait for their turn shall know before they give up.
	ctx, cancel := context.WithTimeout(ctx, l.patience/3*2)
	defer cancel()
	lasted := time.Since(l.last)
	got, err := l.from.Lease(ctx, int(want))
	l.silent.Store(err != nil)
	if err != nil {
		return false, 0, errkind.Errorf(errkind.Of(err), noAnswer+": %w", err)
	}
	now := time.Now() // the unit's own time is not the VCM's use
	if int64(got.Tokens) < want {
		pause = max(time.Duration(got.Retry)*time.Millisecond, shortest)
		l.again = now.Add(pause)
	} else if lasted < span {
		l.want.Store(min(2*want, mostLeased))
	} else {
		l.want.Store(max(want/2, l.least))
	}
	if got.Tokens < 1 {
		return false, pause, nil
	}
	l.last = now
	l.left.Add(int64(got.Tokens - 1))
	return true, pause, nil
}
