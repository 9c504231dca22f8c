// Package store keeps the state of one VCM: sealed, crash-safe, within a quota,
// and not to be rolled back unnoticed.
package store

import (
	"context"
	"log/slog"
	"os"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
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
type Store struct{}

// Tx is a transaction. It is valid only inside the function it was given to.
type Tx struct{}

// Bucket is a transaction's view of one bucket.
type Bucket struct{ tx *Tx }

var errSoon = errkind.Errorf(errkind.Unavailable, "store is not open")

// Open opens the store in cfg.Dir, or makes it.
func Open(ctx context.Context, cfg Config) (*Store, error) { return nil, errSoon }

// View runs fn on a snapshot.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error { return errSoon }

// Update runs fn in a transaction that many callers may share and returns once
// it is durable. fn must have no effects besides tx; an error from fn undoes
// fn's writes only and is returned.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error { return errSoon }

// Shrink is Update for transactions that free space (deletions, compaction):
// it is allowed also when the store is over its quota.
func (s *Store) Shrink(ctx context.Context, fn func(*Tx) error) error { return errSoon }

// Close writes everything, raises the counter and closes the file.
func (s *Store) Close() error { return nil }

// DiskUsed is the space in use, in bytes.
func (s *Store) DiskUsed() int64 { return 0 }

// ReadOnly reports whether the store is over its quota or its disk is full.
func (s *Store) ReadOnly() bool { return false }

// Bucket returns the named bucket; it exists once it holds a key.
func (tx *Tx) Bucket(name string) *Bucket { return &Bucket{tx} }

// Tx returns the transaction the bucket belongs to.
func (b *Bucket) Tx() *Tx { return b.tx }

// Get returns the value of key, nil if there is none.
func (b *Bucket) Get(key []byte) ([]byte, error) { return nil, errSoon }

// Put sets the value of key.
func (b *Bucket) Put(key, value []byte) error { return errSoon }

// Delete removes key; a missing key is no error.
func (b *Bucket) Delete(key []byte) error { return errSoon }

// Range calls fn for each key with the prefix, in order of keys.
func (b *Bucket) Range(prefix []byte, fn func(key, value []byte) error) error { return errSoon }
