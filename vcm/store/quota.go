package store

import (
	"context"
	"log/slog"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// reserve is what updates leave free for deletions and Shrink.
func (s *Store) reserve() int64 { return max(s.cfg.Quota/16, 128<<10) }

// margin is how far a store that is read-only must come down to leave that.
func (s *Store) margin() int64 {
	limit := s.cfg.Quota - s.reserve()
	return limit - limit/64
}

// admitGrowth decides whether the writes of a transaction that has just run fit.
// Deletions alone always do.
func (s *Store) admitGrowth(wrote, shrink bool, before int64) error {
	if !wrote {
		return nil
	}
	limit := s.cfg.Quota
	switch {
	case shrink:
	case s.readOnly.Load():
		limit = s.margin()
	default:
		limit -= s.reserve()
	}
	if s.batch.index.live <= limit {
		return nil
	}
	if !shrink {
		s.setReadOnly(true, "the disk quota is used up")
	}
	return errkind.Errorf(errkind.Limit,
		"the VCM uses %d of its disk quota of %d bytes and is read-only: export and expire the log, or have the quota raised", before, s.cfg.Quota)
}

// space is how much is in use.
func (s *Store) space() int64 { return s.batch.index.live + int64(headSize) }

// measure notes the space in use after a commit, and leaves read-only mode once
// there is a margin again. Garbage does not count: compaction bounds it.
func (s *Store) measure() {
	used := s.space()
	s.used.Store(used)
	if used <= s.margin() {
		s.setReadOnly(false, "there is room again")
	} else if used > s.cfg.Quota-s.reserve() {
		s.setReadOnly(true, "the disk quota is used up")
	}
}

// setReadOnly raises or clears the alarm; it is logged when it changes.
func (s *Store) setReadOnly(on bool, why string) {
	if s.readOnly.Swap(on) == on {
		return
	}
	level := slog.LevelInfo
	if on {
		level = slog.LevelError
	}
	s.cfg.Log.Log(context.Background(), level, "store read-only state changed", "readOnly", on, "why", why,
		"used", s.used.Load(), "quota", s.cfg.Quota)
}
