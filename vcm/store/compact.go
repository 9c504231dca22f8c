package store

import (
	"errors"
	"os"
	"slices"
)

// slack is how much garbage a small log may have.
const slack = 1 << 20

// wasteful reports whether the log is due for compaction: when half of it is
// garbage, and before it is a quarter above the quota.
func (s *Store) wasteful() bool {
	s.state.Lock()
	live := s.batch.index.live
	s.state.Unlock()
	return s.log.end >= s.retry && s.log.end > min(s.cfg.Quota+s.cfg.Quota/4-s.growStep(), 2*live+slack)
}

// growStep is how much space a large log takes at a time.
func (s *Store) growStep() int64 { return min(s.cfg.Quota/32, 256<<10) }

// compact writes the state into the other file and goes on with that. The caller
// leads: nobody else writes. A failure before that costs nothing but the space
// that was to be won; it is tried again later.
func (s *Store) compact() {
	if err := s.rewrite(); err != nil {
		s.retry = s.log.end + s.cfg.Quota/16
		s.cfg.Log.Error("the store could not be compacted", "err", err)
		return
	}
	s.retry = 0
}

func (s *Store) rewrite() error {
	spare := s.spare.Swap(nil)
	if spare == nil {
		return errors.New("readers still use the log from before the last compaction")
	}
	l, err := newFile(spare, s.key)
	if err != nil {
		return errors.Join(err, s.retire(spare))
	}
	// Only the leader changes the index, so it is read without the lock.
	names := make([]string, 0, len(s.batch.index.buckets))
	for name := range s.batch.index.buckets {
		names = append(names, name)
	}
	slices.Sort(names)
	places, err := s.copyTo(l, names)
	if err == nil {
		err = errors.Join(l.f.Sync(), s.cfg.Dir.Sync()) // what the state is now in shall have a name
	}
	if err != nil {
		return errors.Join(err, s.retire(spare))
	}
	s.state.Lock()
	for _, name := range names {
		b := s.batch.index.buckets[name]
		for li := range b.leaves {
			for ii := range b.leaves[li].items {
				if b.leaves[li].items[ii].cold {
					b.own(li).items[ii].at, places = places[0], places[1:]
				}
			}
		}
	}
	old := s.log
	old.after = s.retire
	s.log = l
	s.state.Unlock()
	return old.release()
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

// copyTo writes every item into l as one commit and returns the new places of
// the cold ones, in order.
func (s *Store) copyTo(l *logFile, names []string) (places []uint64, err error) {
	const flushAt = 256 << 10
	w := &s.writer
	w.begin(l, s.seq)
	defer w.trim()
	flush := func() error {
		if _, err := l.f.WriteAt(w.out, l.end); err != nil {
			return err
		}
		l.end += int64(len(w.out))
		l.size = l.end
		w.out = w.out[:0]
		return nil
	}
	from := &Tx{key: s.key, log: s.log, passing: true}
	for _, name := range names {
		b := s.batch.index.buckets[name]
		b.scan(nil, func(it *item) bool {
			var value []byte
			if value, err = from.value(it); err != nil {
				return false
			}
			at := w.put(b, it.key(), value)
			if it.cold {
				places = append(places, at)
			}
			if len(w.out) >= flushAt {
				err = flush()
			}
			return err == nil
		})
		if err != nil {
			return nil, err
		}
	}
	w.seal(true)
	if err := flush(); err != nil {
		return nil, err
	}
	l.prev = w.prev
	return places, nil
}
