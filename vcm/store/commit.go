package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// maxBatch bounds how many functions share a commit. Further callers wait for the next.
const maxBatch = 512

// call is one caller of Update. It is the store's until wake has a value, and its
// caller's afterwards.
type call struct {
	ctx      context.Context
	fn       func(*Tx) error
	shrink   bool
	leads    bool // it is to write the commit, which wakes it again
	panicked *panicked
	err      error
	wake     chan struct{}
	before   *call // that arrived before; see turn
}

// panicked is what a function has panicked with, and where: its caller's goroutine does
// not know.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) String() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }

// update has fn run, among the writes that the next commit takes, and waits for that
// commit.
func (s *Store) update(ctx context.Context, fn func(*Tx) error, shrink bool) error {
	c, _ := s.calls.Get().(*call)
	if c == nil {
		c = &call{wake: make(chan struct{}, 1)}
	}
	c.ctx, c.fn, c.shrink = ctx, fn, shrink
	s.state.leave(c)
	<-c.wake
	if c.leads {
		s.lead()
		<-c.wake
	}
	err, p := c.err, c.panicked
	*c = call{wake: c.wake}
	s.calls.Put(c)
	if p != nil {
		panic(p)
	}
	return err
}

// join runs the call, and has it told how the commit ends that makes durable what its
// function has seen and written. If there is nobody to write that, the call is. Where
// the batch is full, it is run after the next commit has begun. The caller holds state.
func (s *Store) join(c *call) {
	switch {
	case s.closed:
		c.err = errClosed()
	case s.failed != nil:
		c.err = s.failed
	case len(s.batch.calls) >= maxBatch:
		s.late = append(s.late, c)
		return
	case c.ctx.Err() != nil:
		c.err = errkind.Errorf(errkind.Unavailable, "store: %w", c.ctx.Err())
	default:
		s.run(c)
		if s.gathering || c.panicked != nil { // Settle makes it durable; it was undone
			break
		}
		s.batch.calls = append(s.batch.calls, c)
		switch {
		case s.resting:
			s.resting, s.leading = false, true
			c.leads = true
			c.wake <- struct{}{}
		case s.awaited > 0 && len(s.batch.calls) >= s.awaited:
			s.awaited = 0
			s.come <- struct{}{}
		}
		return
	}
	c.wake <- struct{}{}
}

// joinLate runs what had to wait for another batch. The caller holds state.
func (s *Store) joinLate() {
	late := s.late
	s.late = nil
	for _, c := range late {
		s.join(c)
	}
}

// lead writes the commit of a caller that came alone, in its own goroutine: to wake
// the committer takes as long as half a sync. Others that have come meanwhile are
// the committer's.
func (s *Store) lead() {
	s.commit()
	s.state.Lock()
	defer s.state.Unlock()
	s.leading = false
	s.led.Broadcast()
	if len(s.batch.calls) > 0 || s.untidy() {
		s.come <- struct{}{}
	} else {
		s.resting, s.expected = true, 0
	}
}

func errClosed() error { return errkind.Errorf(errkind.Unavailable, "the store is closed") }

// run runs the call's function, whose writes are undone if it fails or panics. The
// caller holds state.
func (s *Store) run(c *call) {
	tx := &Tx{key: s.key, log: s.log, buckets: s.batch.index.buckets, batch: &s.batch, flight: s.flight.records}
	before, kept := s.batch.index.live, false
	defer func() {
		if v := recover(); v != nil {
			c.panicked = &panicked{v, debug.Stack()}
		}
		tx.end()
		if !kept {
			s.batch.drop()
		}
	}()
	if c.err = c.fn(tx); c.err == nil {
		c.err = s.admitGrowth(tx.wrote, c.shrink, before)
	}
	if c.err == nil {
		s.batch.keep()
		kept = true
	}
}

// committer writes one commit after the other while there are callers, until Close.
func (s *Store) committer() {
	defer close(s.idle)
	for range s.come {
		for more := true; more; more = s.rest() {
			s.tidy()
			s.company()
			s.commit()
		}
	}
	s.commit()
}

// rest reports whether there is more to do; if not, the next caller leads.
func (s *Store) rest() (more bool) {
	s.state.Lock()
	defer s.state.Unlock()
	if len(s.batch.calls) > 0 || s.expected > 0 {
		return true
	}
	s.resting = true
	return false
}

// companyTime is how long after the last commit the next one waits for company, at
// most.
const companyTime = time.Millisecond

// company has a commit wait for four of five callers of those that are expected: as
// many as the last commit had, and as have come since it began.
func (s *Store) company() {
	s.state.Lock()
	n := min(s.expected*4/5, maxBatch)
	if len(s.batch.calls) >= n || s.closed {
		s.state.Unlock()
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
	defer s.state.Unlock()
	if s.awaited == 0 && !s.closed {
		select { // it was sent after the time was over
		case <-s.come:
		default:
		}
	}
	s.awaited = 0
}

// commit makes durable what has gathered. It belongs to the committer, and while that
// rests to who leads.
func (s *Store) commit() {
	s.writing.Lock()
	s.state.Lock()
	if len(s.batch.calls) == 0 {
		s.expected = 0
		s.state.Unlock()
		s.writing.Unlock()
		return
	}
	s.batch, s.flight = s.flight, s.batch
	s.batch.seq = s.flight.seq + 1
	s.joinLate()
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
		s.joinLate() // or nobody would
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
