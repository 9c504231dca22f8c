package store

import (
	"context"
	"log/slog"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// reserve is what updates leave free for deletions and for pages that a commit
// copies before it frees the old ones.
func (s *Store) reserve() int64 { return max(s.cfg.Quota/16, 128<<10) }

// admitGrowth decides whether a transaction's writes fit beside those already
// taken into the commit. Deletions alone always fit.
func (s *Store) admitGrowth(r *request, own, batch overlay) error {
	grow := own.growth()
	if grow == 0 {
		return nil
	}
	limit := s.cfg.Quota
	if !r.shrink {
		limit -= s.reserve()
	}
	if s.used.Load()+batch.growth()+grow <= limit {
		return nil
	}
	if !r.shrink {
		s.setReadOnly(true, "the disk quota is used up")
	}
	return errkind.Errorf(errkind.Limit,
		"the VCM uses %d of its disk quota of %d bytes and is read-only: export and expire the log, or have the quota raised", s.used.Load(), s.cfg.Quota)
}

// measure notes the space in use after a commit, and leaves read-only mode once
// there is a margin again.
func (s *Store) measure() {
	tx, err := s.db.Begin(false)
	if err != nil {
		return // closed
	}
	size := tx.Size()
	_ = tx.Rollback()
	st := s.db.Stats()
	used := size - int64(st.FreePageN+st.PendingPageN)*int64(s.db.Info().PageSize)
	s.used.Store(used)
	limit := s.cfg.Quota - s.reserve()
	if used <= limit-limit/64 {
		s.setReadOnly(false, "there is room again")
	} else if used > limit {
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
