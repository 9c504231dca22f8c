package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// maxBatch bounds how many updates share a commit.
const maxBatch = 512

// fewWaiting is below how many updates the leader lets others run first.
const fewWaiting = 32

// request is one caller's update. The leader of a commit owns those of its
// batch; its callers read them after wake.
type request struct {
	fn     func(*Tx) error
	shrink bool

	wake     chan struct{} // has a value once the outcome is there
	err      error
	panicked *panicked
}

type panicked struct{ value any }

// update queues a request. The first caller commits; those that come meanwhile
// form the next batch.
func (s *Store) update(ctx context.Context, fn func(*Tx) error, shrink bool) error {
	r, _ := s.requests.Get().(*request)
	if r == nil {
		r = &request{wake: make(chan struct{}, 1)}
	}
	r.fn, r.shrink = fn, shrink
	err := s.outcome(ctx, r)
	panicked := r.panicked
	*r = request{wake: r.wake}
	s.requests.Put(r)
	if panicked != nil {
		panic(panicked.value)
	}
	return err
}

// outcome commits r, or waits until another has. Nobody else uses r afterwards.
func (s *Store) outcome(ctx context.Context, r *request) error {
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return errClosed()
	case ctx.Err() != nil:
		s.mu.Unlock()
		return errkind.Errorf(errkind.Unavailable, "store: %w", ctx.Err())
	}
	lead := !s.leading
	s.leading = true
	s.queue = append(s.queue, r)
	s.mu.Unlock()

	if lead {
		s.lead(r)
	} else {
		select {
		case <-r.wake:
		case <-ctx.Done():
			if s.withdraw(r) {
				return errkind.Errorf(errkind.Unavailable, "store: %w", ctx.Err())
			}
			<-r.wake
		}
	}
	return r.err
}

func errClosed() error { return errkind.Errorf(errkind.Unavailable, "the store is closed") }

// withdraw takes r out of the queue unless its commit has begun.
func (s *Store) withdraw(r *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, r)
	if i < 0 {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	return true
}

// lead commits the batch that r heads. If more have come meanwhile, it does not
// keep r's caller waiting for them.
func (s *Store) lead(r *request) {
	if s.round(r) {
		go func() { // ends before Close, which waits for the leader
			for s.round(nil) {
			}
		}()
	}
}

// round commits what is queued and reports whether there is more to do; if not,
// the next caller leads.
func (s *Store) round(own *request) bool {
	s.mu.Lock()
	if len(s.queue) < fewWaiting {
		s.mu.Unlock()
		runtime.Gosched() // who is about to call shall share the commit
		s.mu.Lock()
	}
	n := min(len(s.queue), maxBatch)
	all := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	failed := s.failed
	s.mu.Unlock()

	if failed == nil {
		failed = s.raiser.tooOld()
	}
	if failed != nil {
		setAll(all, failed)
	} else {
		s.commit(all)
	}
	for _, q := range all {
		if q != own {
			q.wake <- struct{}{} // and do not look at q again
		}
	}
	if failed == nil && !s.tidy(own == nil) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 {
		return true
	}
	s.leading = false
	s.idle.Broadcast()
	return false
}

// commit runs the functions of all and makes what they wrote durable. Readers
// see the state before until it is. What is gathered waits for Settle.
func (s *Store) commit(all []*request) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.state.Lock()
	s.batch.seq = s.seq + 1
	for _, r := range all {
		before := s.batch.index.live
		tx := &Tx{key: s.key, log: s.log, buckets: s.batch.index.buckets, batch: &s.batch}
		r.run(tx)
		tx.end()
		if r.err == nil && r.panicked == nil {
			r.err = s.admitGrowth(r, tx.wrote, before)
		}
		if r.err == nil && r.panicked == nil {
			s.batch.keep()
		} else {
			s.batch.drop()
		}
	}
	if s.gathering {
		s.state.Unlock()
		return
	}
	if len(s.batch.changes) == 0 {
		s.batch.done()
		s.state.Unlock()
		return
	}
	s.writer.begin(s.log, s.batch.seq)
	s.batch.encode(&s.writer)
	s.state.Unlock()

	err := s.log.append(&s.writer, s.growStep())
	s.writer.trim()
	s.state.Lock()
	if err != nil {
		s.batch.dropAll()
		s.state.Unlock()
		setAll(all, s.commitFailed(err))
		return
	}
	s.batch.done()
	s.seq++
	s.state.Unlock()
	s.measure()
	s.raiser.committed(s.seq)
}

// run calls fn and catches its panic, which belongs to the caller's goroutine.
func (r *request) run(tx *Tx) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked = &panicked{fmt.Sprintf("panic in a store transaction: %v", v)}
		}
	}()
	r.err = r.fn(tx)
}

func setAll(all []*request, err error) {
	for _, r := range all {
		if r.err == nil {
			r.err = err
		}
	}
}

// commitFailed decides what a failed commit means. If its bytes are not whole
// in the file, nothing has changed. Otherwise it is unknown which of two states
// the disk holds after a power cut, so the store ends; opening it again finds
// out.
func (s *Store) commitFailed(cause error) error {
	var uncertain errUncertain
	switch {
	case errors.As(cause, &uncertain):
	case diskFull(cause):
		s.setReadOnly(true, "the disk is full")
		return errkind.Errorf(errkind.Limit, "the VCM's disk is full, nothing was changed: %w", cause)
	default:
		return errkind.Errorf(errkind.Unavailable, "the store could not be written, nothing was changed: %w", cause)
	}
	return s.fail(cause)
}

// fail ends the store.
func (s *Store) fail(cause error) error {
	err := errkind.Errorf(errkind.Unavailable, "the store failed, the VCM must be started again: %w", cause)
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	close(s.broken) // once: nothing is committed after a failure
	return err
}

func diskFull(err error) bool {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}
