package pos

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Compaction keeps the store small by rule, and never what could be asked
// again: a meter is forgotten once the newest minute it used is so old that
// the module refuses every identifier near it, and a result once it is beyond
// the number that is kept.
const (
	forgetAfter     = 15 * 24 * time.Hour // more than twice the widest window
	compactFirst    = time.Minute         // after the start, which has enough to do
	compactEvery    = time.Hour
	compactedAtOnce = 500 // records a transaction, so that vending waits little
)

// Run compacts the store from time to time until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	timer := time.NewTimer(compactFirst)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(compactEvery)
		case <-ctx.Done():
			return nil
		}
		if n, err := s.Compact(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the store could not be compacted", "error", err)
		} else if n > 0 {
			s.log.Info("store compacted", "records", n)
		}
	}
}

// Compact removes what the rule allows and reports how many records it was.
// In test mode, where no window protects old identifiers, meters are kept.
func (s *Service) Compact(ctx context.Context) (removed int, err error) {
	now := s.now()
	var meters, results [][]byte
	err = s.store.View(ctx, func(tx *store.Tx) error {
		var err error
		if !s.testMode {
			if meters, err = staleMeters(tx.Bucket(bucketMeters), now); err != nil {
				return err
			}
		}
		results, err = s.staleResults(tx.Bucket(BucketResults))
		return err
	})
	if err != nil {
		return 0, err
	}
	n, err := s.removeEach(ctx, meters, func(tx *store.Tx, pan []byte) (bool, error) {
		b := tx.Bucket(bucketMeters)
		raw, err := b.Get(pan)
		if err != nil || raw == nil {
			return false, err
		}
		mem, err := decodeMemory(raw) // it may have vended since
		if err != nil || !stale(&mem, now) {
			return false, err
		}
		if err := deleteAll(tx.Bucket(bucketNamed), pan); err != nil {
			return false, err
		}
		return true, b.Delete(pan)
	})
	removed += n
	if err != nil {
		return removed, err
	}
	n, err = s.removeEach(ctx, results, func(tx *store.Tx, key []byte) (bool, error) {
		return true, tx.Bucket(BucketResults).Delete(key)
	})
	return removed + n, err
}

func (s *Service) removeEach(ctx context.Context, keys [][]byte, remove func(*store.Tx, []byte) (bool, error)) (removed int, err error) {
	for len(keys) > 0 {
		batch := keys[:min(len(keys), compactedAtOnce)]
		keys = keys[len(batch):]
		n := 0
		err := s.store.Shrink(ctx, func(tx *store.Tx) error {
			n = 0
			for _, k := range batch {
				done, err := remove(tx, k)
				if err != nil {
					return err
				}
				if done {
					n++
				}
			}
			return nil
		})
		if err != nil {
			return removed, err
		}
		removed += n
	}
	return removed, nil
}

func stale(m *memory, now time.Time) bool {
	return m.newest() < (now.Add(-forgetAfter).Unix()-unix1993)/60
}

func staleMeters(b *store.Bucket, now time.Time) (pans [][]byte, err error) {
	err = b.Range(nil, func(pan, raw []byte) error {
		mem, err := decodeMemory(raw)
		if err == nil && stale(&mem, now) {
			pans = append(pans, bytes.Clone(pan))
		}
		return err
	})
	return pans, err
}

// staleResults finds slots that the ring no longer uses because it became smaller.
func (s *Service) staleResults(b *store.Bucket) (keys [][]byte, err error) {
	kept := s.resultsKept()
	err = b.Range([]byte{'s'}, func(key, value []byte) error {
		slot := uint64(binary.BigEndian.Uint32(key[len(key)-4:]))
		if seq, _, _, ok := splitResult(value); ok && (slot >= kept || seq%kept != slot) {
			keys = append(keys, bytes.Clone(key))
		}
		return nil
	})
	return keys, err
}
