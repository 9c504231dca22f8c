package scale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/failure"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// patience is how long one deed is tried again while the orchestrator is away.
const patience = 2 * time.Minute

// deed is one thing to do to one VCM. It may be done again: after a lost answer
// nobody knows whether it was.
type deed func(ctx context.Context, h *rig.Hosting, i int) error

// fleet does deeds to many VCMs over several connections at once, and goes on
// where it was when the orchestrator dies.
type fleet struct {
	direct  *rig.Direct
	workers int
}

// each does it to the VCMs 0 to n-1. progress counts them.
func (f fleet) each(ctx context.Context, n int, progress *atomic.Int64, do deed) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	var workers sync.WaitGroup
	errs := make(chan error, f.workers)
	for range min(f.workers, n) {
		workers.Go(func() {
			w := worker{direct: f.direct}
			defer w.hangUp()
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := w.insist(ctx, i, do); err != nil {
					errs <- fmt.Errorf("VCM %d: %w", i, err)
					cancel()
					return
				}
				progress.Add(1)
			}
		})
	}
	workers.Wait()
	close(errs)
	return <-errs
}

// worker has one connection at a time.
type worker struct {
	direct  *rig.Direct
	session *rig.Hosting
}

func (w *worker) hangUp() {
	if w.session != nil {
		w.session.Close()
		w.session = nil
	}
}

// insist repeats the deed until it is done or refused.
func (w *worker) insist(ctx context.Context, i int, do deed) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		if w.session == nil {
			w.session, last = w.direct.Dial(ctx)
		}
		if w.session != nil {
			if last = do(ctx, w.session, i); last == nil {
				return nil
			}
			kind, said := kindOf(last)
			if !said {
				w.hangUp()
			} else if kind != errkind.Unavailable {
				return last
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), last)
		}
	}
}

// kindOf returns what kind of failure the service reported; said is false if it
// reported none, because the connection broke.
func kindOf(err error) (kind errkind.Kind, said bool) {
	var f *failure.Failure
	if !errors.As(err, &f) {
		return errkind.Internal, false
	}
	return errkind.Parse(f.Kind), true
}

// list asks once, on a connection of its own.
func (f fleet) list(ctx context.Context) (out []*orchestrator.Vcm, err error) {
	err = f.each(ctx, 1, new(atomic.Int64), func(ctx context.Context, h *rig.Hosting, _ int) (err error) {
		out, err = h.ListVcms(ctx, false)
		return err
	})
	return out, err
}

// settle waits until every VCM is in one of the states, and says how many are
// in which.
func (f fleet) settle(ctx context.Context, want ...string) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		all, err := f.list(ctx)
		if err != nil {
			return nil, err
		}
		states, odd := map[string]int{}, ""
		for _, v := range all {
			states[v.State]++
			if odd == "" && !slices.Contains(want, v.State) {
				odd = fmt.Sprintf("VCM %s is %s (%s)", v.Uuid, v.State, v.Reason)
			}
		}
		if odd == "" {
			return states, nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return states, fmt.Errorf("stuck: %s; all: %v", odd, states)
		}
	}
}
