package store

import (
	"errors"
	"os"
	"runtime"
	"slices"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// slack is how much garbage a small log may have.
const slack = 1 << 20

// growStep is how much space a large log takes at a time.
func (s *Store) growStep() int64 { return min(s.cfg.Quota/32, 256<<10) }

// mostLog is the length beyond which commits wait for a compaction.
func (s *Store) mostLog() int64 { return s.cfg.Quota + s.cfg.Quota/4 - s.growStep() }

// untidy reports whether half of the log is garbage, or it will soon be a quarter
// above the quota. The caller holds state.
func (s *Store) untidy() bool {
	end := s.log.end
	return end >= s.retry.Load() && end > min(s.mostLog()-s.cfg.Quota/16, 2*s.batch.index.live+slack)
}

// tidy has an untidy log compacted. It belongs to the committer, which waits for the
// compaction where the log would grow too long meanwhile.
func (s *Store) tidy() {
	if s.compaction != nil {
		select {
		case <-s.compaction:
			s.compaction = nil
		default:
		}
	}
	s.state.Lock()
	untidy, end := s.failed == nil && s.untidy(), s.log.end
	s.state.Unlock()
	if !untidy {
		return
	}
	if s.compaction == nil {
		done := make(chan struct{})
		s.compaction = done
		go func() { // Close waits for it
			defer close(done)
			s.compact()
		}()
	}
	if end > s.mostLog() {
		<-s.compaction
	}
}

// compact writes the state into the other file and goes on with that. A failure
// before that costs nothing but the space that was to be won; it is tried again
// later.
func (s *Store) compact() {
	err := s.rewrite()
	if err == nil {
		s.retry.Store(0)
		return
	}
	s.writing.Lock() // the log does not grow
	s.retry.Store(s.log.end + s.cfg.Quota/16)
	s.writing.Unlock()
	if !errors.Is(err, errEnding) {
		s.cfg.Log.Error("the store could not be compacted", "err", err)
	}
}

var errEnding = errors.New("the store is being closed, or has failed")

// rewrite copies the state while commits go on, then what has changed since,
// and so on; commits wait for the last, short step only.
func (s *Store) rewrite() error {
	c, err := s.beginCopy()
	if err != nil {
		return err
	}
	if err = c.follow(); err == nil {
		err = c.end()
	}
	return c.leave(err)
}

// beginCopy takes the other file for a copy of the state.
func (s *Store) beginCopy() (*copier, error) {
	spare := s.spare.Swap(nil)
	if spare == nil {
		return nil, errors.New("readers still use the log from before the last compaction")
	}
	l, err := newFile(spare, s.key)
	if err != nil {
		return nil, errors.Join(err, s.retire(spare))
	}
	s.state.Lock()
	old := s.log
	old.refs.Add(1)
	s.state.Unlock()
	return newCopier(s, l, old), nil
}

// moveTo makes l the log. Only the compaction and commits change it, and the
// places in the index: the caller holds writing.
func (s *Store) moveTo(l *logFile, places map[uint64]uint64) error {
	s.state.Lock()
	defer s.state.Unlock()
	lost := func(b *bucket, it *item) error {
		if _, ok := places[it.at]; it.cold && !ok {
			return errkind.Errorf(errkind.Internal, "a value in bucket %s was not copied", b.name)
		}
		return nil
	}
	for _, b := range s.batch.index.buckets {
		for li := range b.leaves {
			for ii := range b.leaves[li].items {
				if err := lost(b, &b.leaves[li].items[ii]); err != nil {
					return err
				}
			}
		}
	}
	for i := range s.batch.changes {
		if err := lost(s.batch.changes[i].bucket, &s.batch.changes[i].old); err != nil {
			return err
		}
	}
	for _, b := range s.batch.index.buckets {
		for li := range b.leaves {
			for ii := range b.leaves[li].items {
				if b.leaves[li].items[ii].cold {
					it := &b.own(li).items[ii]
					it.at = places[it.at]
				}
			}
		}
	}
	for i := range s.batch.changes { // what undoes them was moved, too
		if it := &s.batch.changes[i].old; it.cold {
			it.at = places[it.at]
		}
	}
	old := s.log
	old.after = s.retire
	s.log = l
	return old.release() // of the store; the compaction still has it
}

// retire makes a file the spare one when its last reader has left. It is emptied
// first: of two whole files, that with the newer commits is the store.
func (s *Store) retire(f *os.File) error {
	err := f.Truncate(0)
	s.state.Lock()
	closed := s.log == nil
	if !closed {
		s.spare.Store(f)
	}
	s.state.Unlock()
	if closed {
		err = errors.Join(err, f.Close())
	}
	return err
}

// copier writes the state into a file as its first commit, in steps: what was
// there when it began, then the changes since the step before.
type copier struct {
	s    *Store
	from *Tx // reads the old log
	to   *logFile
	w    writer
	have map[string]*bucket // what was copied
	// places are where the values went that stay in the log.
	places map[uint64]uint64
	n      int   // operations of this step
	synced int64 // length that is on the disk
}

func newCopier(s *Store, to, old *logFile) *copier {
	c := &copier{s: s, to: to, from: &Tx{key: s.key, log: old, passing: true}, places: map[uint64]uint64{}}
	c.w.key = s.key
	c.w.begin(to, 0)
	return c
}

const (
	flushAt = 256 << 10
	// A commit that is to be synced meanwhile waits for the disk as long as this
	// much takes.
	syncAt = 1 << 20
	// A step of so few operations is the last one, or that after so many.
	fewChanges = 1 << 10
	mostSteps  = 8
)

// end copies the rest and makes the copy the log.
func (c *copier) end() error {
	c.s.writing.Lock()
	defer c.s.writing.Unlock()
	if err := c.finish(); err != nil {
		return err
	}
	return c.s.moveTo(c.to, c.places)
}

// leave gives back what is not used any more: the copy if there was an error.
func (c *copier) leave(err error) error {
	if err != nil {
		err = errors.Join(err, c.s.retire(c.to.f))
	}
	return errors.Join(err, c.from.log.release())
}

// follow copies until little is missing.
func (c *copier) follow() error {
	for range mostSteps {
		if err := c.step(); err != nil {
			return err
		}
		if c.n < fewChanges {
			break
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	// Most of it is then on the disk, and what the state will be in has a name.
	return errors.Join(c.to.f.Sync(), c.s.cfg.Dir.Sync())
}

// finish copies the rest and ends the commit. Nobody changes the log meanwhile.
func (c *copier) finish() error {
	if err := c.step(); err != nil {
		return err
	}
	c.w.seal(true)
	if err := c.flush(); err != nil {
		return err
	}
	c.to.prev = c.w.prev
	return c.to.f.Sync()
}

// step copies what is durable now and was not copied yet.
func (c *copier) step() error {
	now, seq := c.s.durable()
	if seq != c.w.seq && len(c.w.body) > 0 {
		c.w.seal(false) // under its own number
	}
	c.w.seq, c.n = seq, 0
	names := make([]string, 0, len(now))
	for name := range now {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := c.bucket(c.have[name], now[name]); err != nil {
			return err
		}
	}
	c.have = now
	return nil
}

// bucket copies how now differs from before. Leaves that both share are the same.
func (c *copier) bucket(before, now *bucket) error {
	shared := map[*leaf]bool{}
	if before != nil {
		for _, l := range before.leaves {
			shared[l] = true
		}
	}
	for _, l := range now.leaves {
		if shared[l] {
			delete(shared, l)
			continue
		}
		for i := range l.items {
			it := &l.items[i]
			if before != nil {
				if b := before.get(it.key()); b != nil && b.same(it) {
					continue
				}
			}
			if err := c.put(now, it); err != nil {
				return err
			}
		}
	}
	if before == nil {
		return nil
	}
	for _, l := range before.leaves {
		if !shared[l] {
			continue
		}
		for i := range l.items {
			if key := l.items[i].key(); now.get(key) == nil {
				c.w.delete(now, key)
				c.n++
			}
		}
	}
	return nil
}

func (c *copier) put(in *bucket, it *item) error {
	value, err := c.from.value(it)
	if err != nil {
		return err
	}
	at := c.w.put(in, it.key(), value)
	if it.cold {
		c.places[it.at] = at
	}
	c.n++
	if len(c.w.out) < flushAt {
		return nil
	}
	if c.s.ending() {
		return errEnding
	}
	runtime.Gosched() // nobody waits for this
	return c.flush()
}

func (c *copier) flush() error {
	if _, err := c.to.f.WriteAt(c.w.out, c.to.end); err != nil {
		return err
	}
	c.to.end += int64(len(c.w.out))
	c.to.size = c.to.end
	c.w.out = c.w.out[:0]
	if c.to.end < c.synced+syncAt {
		return nil
	}
	c.synced = c.to.end
	return c.to.f.Sync()
}
