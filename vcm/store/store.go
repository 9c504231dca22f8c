// Package store keeps the state of one VCM: sealed, crash-safe, within a quota,
// and not to be rolled back unnoticed.
//
// It is one bbolt file, reached only through the descriptor of the data
// directory. Keys are plain, values are sealed under the partition key with
// bucket and key as associated data.
//
// # Durability
//
// Update returns once its writes are on the disk. Callers that come together
// share one commit: while one commit is being written, the next ones gather,
// and a caller that comes alone never waits for company. Each caller's writes
// are held back until its function has succeeded, so that undoing them costs
// nothing and touches nobody else's.
//
// # Rollback
//
// Every commit carries a sequence number and a keyed hash over all sealed
// values (a sum, so that it costs only what the commit writes). Open recomputes
// the hash, so single values cannot be taken back to an older state, and
// compares the sequence number with the device's monotonic counter, so the
// whole file cannot either. The counter is raised RaiseEvery after the first
// commit it does not cover, and at Close. What remains undetected is a file
// taken back to a state that was the newest one less than RaiseEvery, plus the
// duration of one raise, before the last commit. A store that cannot raise the
// counter for MaxUnraised refuses updates, so the window never exceeds that.
//
// # Quota
//
// Space in use is kept under Config.Quota less a reserve. Beyond it, updates
// fail with kind Limit and ReadOnly is true; deletions and Shrink may use the
// reserve. Nothing is ever deleted to make room.
package store

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// RaiseEvery is how long a commit may wait for the device's counter.
	RaiseEvery = 100 * time.Millisecond
	// MaxUnraised is how long updates go on while the counter cannot be raised.
	MaxUnraised = 5 * time.Second
	// MinQuota is the smallest quota a store accepts.
	MinQuota = 1 << 20
	// MaxValue is the largest value in bytes.
	MaxValue = 1 << 20
	// MaxKey is the longest key in bytes.
	MaxKey = 1 << 10
)

// Counter is the device's monotonic counter of this partition.
type Counter interface {
	// Raise sets the counter to v if that is higher, durably, and answers
	// where it stands.
	Raise(ctx context.Context, v uint64) (uint64, error)
}

// Config is what a store needs.
type Config struct {
	Dir     *os.File // the data directory; nothing outside is opened
	Key     []byte   // the partition key; not kept
	Counter Counter
	Quota   int64 // bytes
	Log     *slog.Logger
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	cfg    Config
	db     *bolt.DB
	seals  seals
	raiser *raiser

	mu      sync.Mutex
	idle    sync.Cond // no leader
	queue   []*request
	leading bool
	closed  bool
	failed  error         // set once a commit's outcome is unknown
	broken  chan struct{} // closed then

	// head and writer state belong to the leader of the current commit.
	head header

	used     atomic.Int64
	readOnly atomic.Bool
}

// Open opens the store in cfg.Dir, or makes it. The error's kind is Integrity
// if the file was changed, replaced or rolled back, or the key is another's.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Quota < MinQuota {
		return nil, errkind.Errorf(errkind.Invalid, "disk quota of %d bytes: at least %d are needed", cfg.Quota, MinQuota)
	}
	seals, err := newSeals(cfg.Key)
	if err != nil {
		return nil, err
	}
	cfg.Key = nil // the caller wipes its copy
	s := &Store{cfg: cfg, seals: seals, broken: make(chan struct{})}
	s.idle.L = &s.mu

	counter, err := cfg.Counter.Raise(ctx, 0)
	if err != nil {
		return nil, errkind.Errorf(errkind.Of(err), "read the module's counter: %w", err)
	}
	if s.db, err = openFile(cfg, seals, counter); err != nil {
		return nil, err
	}
	if err := s.admit(ctx, counter); err != nil {
		_ = s.db.Close()
		return nil, err
	}
	s.raiser = newRaiser(cfg.Counter, cfg.Log, s.head.seq)
	return s, nil
}

// admit checks the file against its header and the counter.
func (s *Store) admit(ctx context.Context, counter uint64) error {
	err := s.db.View(func(tx *bolt.Tx) error {
		h, err := s.seals.verify(tx)
		if err != nil {
			return err
		}
		s.head = h
		return nil
	})
	if err != nil {
		return err
	}
	if s.head.seq < counter {
		return errkind.Errorf(errkind.Integrity,
			"the store was rolled back: its newest commit is %d, the module has seen %d; restore the newest copy of the VCM's data", s.head.seq, counter)
	}
	now, err := s.cfg.Counter.Raise(ctx, s.head.seq)
	if err != nil {
		return errkind.Errorf(errkind.Of(err), "raise the module's counter: %w", err)
	}
	if now > s.head.seq {
		return errkind.Errorf(errkind.Integrity, "the module's counter went from %d to %d while the store was opened: another process uses the partition", counter, now)
	}
	// Where the last process stopped for want of room, this one does not begin
	// by trying again.
	s.readOnly.Store(true)
	s.measure()
	return nil
}

// View runs fn on a snapshot.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return errkind.Errorf(errkind.Unavailable, "store: %w", err)
	}
	btx, err := s.db.Begin(false)
	if err != nil {
		return errkind.Errorf(errkind.Unavailable, "store: %w", err)
	}
	defer func() { _ = btx.Rollback() }()
	tx := &Tx{s: s, bolt: btx}
	defer tx.end()
	return fn(tx)
}

// Update runs fn in a transaction that many callers may share and returns once
// it is durable. fn must have no effects besides tx and must not call the store
// again; an error from fn undoes fn's writes only and is returned. If ctx ends
// before fn has begun, fn is not run; after that the outcome is waited for.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.update(ctx, &request{fn: fn})
}

// Shrink is Update for transactions that free space (deletions, compaction):
// it is allowed also when the store is over its quota.
func (s *Store) Shrink(ctx context.Context, fn func(*Tx) error) error {
	return s.update(ctx, &request{fn: fn, shrink: true})
}

// Close waits for the updates in progress, raises the counter to the last
// commit and closes the file. Later calls of the store fail.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for s.leading {
		s.idle.Wait()
	}
	s.mu.Unlock()
	raiseErr := s.raiser.close()
	if err := s.db.Close(); err != nil {
		return errkind.Errorf(errkind.Internal, "close the store: %w", err)
	}
	return raiseErr
}

// DiskUsed is the space in use, in bytes.
func (s *Store) DiskUsed() int64 { return s.used.Load() }

// ReadOnly reports whether the store is over its quota or its disk is full.
func (s *Store) ReadOnly() bool { return s.readOnly.Load() }

// Broken is closed when the store begins to refuse every update; see Failed.
func (s *Store) Broken() <-chan struct{} { return s.broken }

// Failed returns why the store refuses every update until it is opened again,
// nil while it works.
func (s *Store) Failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
