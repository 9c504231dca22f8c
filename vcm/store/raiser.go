package store

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// raiseTimeout bounds one call of the device.
const raiseTimeout = 2 * time.Second

// raiser keeps the device's counter close behind the commits.
type raiser struct {
	counter Counter
	log     *slog.Logger
	wake    chan struct{} // there is a commit the counter does not cover
	stop    context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	seq    uint64    // newest durable commit
	raised uint64    // where the counter stands
	since  time.Time // when the oldest commit not covered was made
}

func newRaiser(counter Counter, log *slog.Logger, seq uint64) *raiser {
	ctx, stop := context.WithCancel(context.Background())
	r := &raiser{counter: counter, log: log, wake: make(chan struct{}, 1), stop: stop, done: make(chan struct{}), seq: seq, raised: seq}
	go r.run(ctx)
	return r
}

// committed notes a durable commit.
func (r *raiser) committed(seq uint64) {
	r.mu.Lock()
	if r.seq == r.raised {
		r.since = time.Now()
	}
	r.seq = seq
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// tooOld refuses updates once the counter is out of reach for too long.
func (r *raiser) tooOld() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seq == r.raised || time.Since(r.since) < MaxUnraised {
		return nil
	}
	return errkind.Errorf(errkind.Unavailable,
		"the module's counter has been out of reach for %s: updates wait until it answers", time.Since(r.since).Round(time.Second))
}

// run raises the counter RaiseEvery after a commit; it sleeps while there are none.
func (r *raiser) run(ctx context.Context) {
	defer close(r.done)
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(RaiseEvery):
		}
		err := r.raise(ctx)
		if err == nil {
			failing = false
			continue
		}
		if !failing && ctx.Err() == nil {
			r.log.Error("the module's counter cannot be raised", "err", err)
			failing = true
		}
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

func (r *raiser) raise(ctx context.Context) error {
	r.mu.Lock()
	seq := r.seq
	covered := seq == r.raised
	r.mu.Unlock()
	if covered {
		return nil
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, raiseTimeout)
	defer cancel()
	at, err := r.counter.Raise(ctx, seq)
	if err != nil {
		return errkind.Errorf(errkind.Of(err), "raise the module's counter to %d: %w", seq, err)
	}
	if at > seq {
		return errkind.Errorf(errkind.Integrity, "the module's counter stands at %d, above commit %d: another process uses the partition", at, seq)
	}
	r.mu.Lock()
	r.raised = at
	r.since = asked // commits made since then are younger than that
	r.mu.Unlock()
	return nil
}

// close raises the counter to the last commit and ends run.
func (r *raiser) close() error {
	r.stop()
	<-r.done
	return r.raise(context.Background())
}
