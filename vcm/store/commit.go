package store

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// maxBatch bounds how many functions share a commit. Further callers wait for the next.
const maxBatch = 512

// call is one caller of Update whose function was run. The committer owns it until
// wake has a value, and its caller afterwards.
type call struct {
	err  error
	wake chan struct{}
}

// update runs fn at once, among the writes that the next commit takes, and waits
// for that commit.
func (s *Store) update(ctx context.Context, fn func(*Tx) error, shrink bool) error {
	c, _ := s.calls.Get().(*call)
	if c == nil {
		c = &call{wake: make(chan struct{}, 1)}
	}
	if err := s.join(ctx, c, fn, shrink); err != nil {
		return err
	}
	<-c.wake
	err := c.err
	c.err = nil
	s.calls.Put(c)
	return err
}

// join runs fn and has c told how the commit ends that makes durable what fn has
// seen and written. It fails if fn was not run.
func (s *Store) join(ctx context.Context, c *call, fn func(*Tx) error, shrink bool) error {
	s.state.Lock()
	defer s.state.Unlock() // also when fn panics
	for len(s.batch.calls) >= maxBatch && !s.closed {
		s.room.Wait()
	}
	switch {
	case s.closed:
		return errClosed()
	case s.failed != nil:
		return s.failed
	case ctx.Err() != nil:
		return errkind.Errorf(errkind.Unavailable, "store: %w", ctx.Err())
	}
	c.err = s.run(fn, shrink)
	if s.gathering { // Settle makes it durable
		c.wake <- struct{}{}
		return nil
	}
	s.batch.calls = append(s.batch.calls, c)
	if s.awaited > 0 && len(s.batch.calls) >= s.awaited {
		s.awaited = 0
		s.come <- struct{}{}
	}
	return nil
}

func errClosed() error { return errkind.Errorf(errkind.Unavailable, "the store is closed") }

// run runs fn, whose writes are undone if it fails or panics. The caller holds state.
func (s *Store) run(fn func(*Tx) error, shrink bool) (err error) {
	tx := &Tx{key: s.key, log: s.log, buckets: s.batch.index.buckets, batch: &s.batch, flight: s.flight.records}
	before, kept := s.batch.index.live, false
	defer func() {
		tx.end()
		if !kept {
			s.batch.drop()
		}
	}()
	if err = fn(tx); err == nil {
		err = s.admitGrowth(tx.wrote, shrink, before)
	}
	if err == nil {
		s.batch.keep()
		kept = true
	}
	return err
}

// committer writes one commit after the other while there are callers, until Close.
func (s *Store) committer() {
	defer close(s.idle)
	for range s.come {
		for s.commit() {
		}
	}
	for s.commit() {
	}
}

// companyTime is how long a commit waits for company, at most: more callers than
// one that syncs at once would have.
const companyTime = time.Millisecond

// company has a commit wait for three of four callers of those that are expected:
// as many as the last commit had, and as have come since it began. The caller holds
// state, which is not held meanwhile.
func (s *Store) company() {
	n := min(s.expected*3/4, maxBatch)
	if len(s.batch.calls) == 0 || len(s.batch.calls) >= n || s.closed {
		return
	}
	s.awaited = n
	s.state.Unlock()
	s.patience.Reset(companyTime)
	select {
	case <-s.come:
	case <-s.patience.C:
	}
	s.state.Lock()
	if s.awaited == 0 && !s.closed {
		select { // it was sent after the time was over
		case <-s.come:
		default:
		}
	}
	s.awaited = 0
}

// commit makes durable what has gathered and reports whether there was anything. If
// not, the next caller is awaited.
func (s *Store) commit() bool {
	s.state.Lock()
	s.company()
	s.state.Unlock()

	s.writing.Lock()
	s.state.Lock()
	if len(s.batch.calls) == 0 {
		s.awaited, s.expected = 1, 0
		s.state.Unlock()
		s.writing.Unlock()
		return false
	}
	s.batch, s.flight = s.flight, s.batch
	s.batch.seq = s.flight.seq + 1
	s.room.Broadcast()
	err := s.fly()
	if err != nil {
		// What has come meanwhile was done to a state that there will not be.
		s.batch.dropAll()
		s.flight.dropAll()
		s.batch.seq = s.flight.seq
		s.flight.fail(err)
		s.batch.fail(err)
		s.flight.calls = append(s.flight.calls, s.batch.calls...)
		s.batch.calls = emptied(s.batch.calls)
	} else if len(s.flight.changes) > 0 {
		s.seq = s.flight.seq
		s.measure()
		s.raiser.committed(s.seq)
	} else {
		s.batch.seq = s.flight.seq
	}
	s.flight.done()
	s.expected = len(s.flight.calls) + len(s.batch.calls)
	s.state.Unlock()
	s.writing.Unlock()

	for _, c := range s.flight.calls {
		c.wake <- struct{}{} // and do not look at c again
	}
	s.flight.calls = emptied(s.flight.calls)
	if err == nil {
		s.tidy()
	}
	return true
}

// fly writes and syncs what is in flight. The caller holds state, which is not held
// meanwhile: readers see the state before, and callers go on from the one after.
func (s *Store) fly() error {
	if err := s.raiser.tooOld(); err != nil {
		return err
	}
	if len(s.flight.changes) == 0 {
		return nil
	}
	s.writer.begin(s.log, s.flight.seq)
	s.flight.encode(&s.writer)
	s.flight.records = records{s.log.end, s.writer.out}
	s.state.Unlock()
	err := s.log.append(&s.writer, s.growStep())
	s.state.Lock()
	s.flight.records = records{}
	s.writer.trim()
	if err != nil {
		err = s.commitFailed(err)
	}
	return err
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
	s.failed = err
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
