package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// maxBatch bounds how many updates share a commit.
const maxBatch = 512

// fill is how full bbolt leaves a page when it splits it. Most keys here are
// appended in order, which would leave every page half empty at the default.
const fill = 0.85

// request is one caller's update. The leader of a commit owns those of its
// batch; its callers read them after wake.
type request struct {
	fn     func(*Tx) error
	shrink bool

	wake     chan bool // true: lead the next commit; false: the outcome is there
	err      error
	panicked *panicked
}

type panicked struct{ value any }

// update queues r. The first caller commits; those that come meanwhile form the
// next batch, and the first of them commits that.
func (s *Store) update(ctx context.Context, r *request) error {
	r.wake = make(chan bool, 1)
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return errkind.Errorf(errkind.Unavailable, "the store is closed")
	case ctx.Err() != nil:
		s.mu.Unlock()
		return errkind.Errorf(errkind.Unavailable, "store: %w", ctx.Err())
	}
	s.queue = append(s.queue, r)
	lead := !s.leading
	s.leading = true
	s.mu.Unlock()

	if !lead {
		select {
		case lead = <-r.wake:
		case <-ctx.Done():
			if s.withdraw(r) {
				return errkind.Errorf(errkind.Unavailable, "store: %w", ctx.Err())
			}
			lead = <-r.wake
		}
	}
	if lead {
		s.lead(r)
	}
	if r.panicked != nil {
		panic(r.panicked.value)
	}
	return r.err
}

// withdraw takes r out of the queue unless its outcome or its turn to lead is
// already on the way.
func (s *Store) withdraw(r *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, r)
	if i < 0 || len(r.wake) > 0 {
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	return true
}

// lead commits the batch that r heads, then appoints the next leader.
func (s *Store) lead(r *request) {
	s.mu.Lock()
	n := min(len(s.queue), maxBatch)
	batch := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	failed := s.failed
	s.mu.Unlock()

	if failed == nil {
		failed = s.raiser.tooOld()
	}
	if failed != nil {
		for _, q := range batch {
			q.err = failed
		}
	} else {
		s.commit(batch)
	}

	s.mu.Lock()
	if len(s.queue) > 0 {
		s.queue[0].wake <- true
	} else {
		s.leading = false
		s.idle.Broadcast()
	}
	s.mu.Unlock()
	for _, q := range batch {
		if q != r {
			q.wake <- false
		}
	}
}

// commit runs the functions of batch and makes what they wrote durable.
func (s *Store) commit(batch []*request) {
	btx, err := s.db.Begin(true)
	if err != nil {
		setAll(batch, errkind.Errorf(errkind.Unavailable, "store: %w", err))
		return
	}
	writes := overlay{}
	for _, r := range batch {
		tx := &Tx{s: s, bolt: btx, writable: true, own: overlay{}, batch: writes}
		r.run(tx)
		tx.end()
		if r.err == nil && r.panicked == nil {
			r.err = s.admitGrowth(r, tx.own, writes)
		}
		if r.err == nil && r.panicked == nil {
			writes.merge(tx.own)
		}
	}
	if len(writes) == 0 {
		_ = btx.Rollback()
		return
	}
	head, err := s.apply(btx, writes)
	if err != nil {
		_ = btx.Rollback()
		setAll(batch, errkind.Errorf(errkind.Internal, "store: %w", err))
		return
	}
	if err := btx.Commit(); err != nil {
		setAll(batch, s.commitFailed(err))
		return
	}
	s.head = head
	s.measure()
	s.raiser.committed(head.seq)
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

func setAll(batch []*request, err error) {
	for _, r := range batch {
		if r.err == nil {
			r.err = err
		}
	}
}

// apply seals writes into btx and returns the header they make.
func (s *Store) apply(btx *bolt.Tx, writes overlay) (header, error) {
	head := s.head
	head.seq++
	for _, name := range sortedKeys(writes) {
		bb, err := btx.CreateBucketIfNotExists([]byte(name))
		if err != nil {
			return header{}, err
		}
		bb.FillPercent = fill
		for _, key := range sortedKeys(writes[name]) {
			v := writes[name][key]
			at := place(name, []byte(key))
			old := bb.Get([]byte(key))
			if old != nil {
				head.state = head.state.sub(s.seals.element(at, old))
			}
			if v.deleted {
				if old != nil {
					err = bb.Delete([]byte(key))
				}
			} else {
				box := s.seals.values.Seal(nil, v.value, at)
				head.state = head.state.add(s.seals.element(at, box))
				err = bb.Put([]byte(key), box)
			}
			if err != nil {
				return header{}, err
			}
		}
	}
	return head, s.seals.write(btx, head)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}

// commitFailed decides what a failed commit means. The file tells: as long as
// its newest header is the one before, the commit's meta page was not written
// and nothing has changed, whatever happened to pages that only it would have
// used. Otherwise it is unknown which of two states the disk holds after a power
// cut, so the store ends; opening it again finds out.
func (s *Store) commitFailed(cause error) error {
	var now header
	err := s.db.View(func(tx *bolt.Tx) (err error) {
		now, err = s.seals.header(tx)
		return err
	})
	switch {
	case err == nil && now == s.head && diskFull(cause):
		s.setReadOnly(true, "the disk is full")
		return errkind.Errorf(errkind.Limit, "the VCM's disk is full, nothing was changed: %w", cause)
	case err == nil && now == s.head:
		return errkind.Errorf(errkind.Unavailable, "the store could not be written, nothing was changed: %w", cause)
	}
	err = errkind.Errorf(errkind.Unavailable, "the store failed, the VCM must be started again: %w", cause)
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	close(s.broken) // once: nothing is committed after a failure
	return err
}

// diskFull looks for the reason also in the text: bbolt prints some causes
// instead of wrapping them.
func diskFull(err error) bool {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) || strings.Contains(err.Error(), full.Error()) {
			return true
		}
	}
	return false
}
