// Package ledger keeps what belongs to the provider's side of one unit on this
// host: the platform's audit log, which client key may use which service,
// licences, and the network. Records of VCMs are in the registry.
//
// The file holds public keys and licences, no secret. Private keys of the
// platform's services are files of their own beside it (see Keys).
package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Names of the file's buckets.
const (
	logBucket      = "log"
	clientBucket   = "clients"
	licenceBucket  = "licences"
	settingsBucket = "settings"
)

// Ledger is an open ledger. It is locked against a second orchestrator on the
// same state folder.
type Ledger struct {
	db  *bolt.DB
	dir string

	commit chan struct{} // holds a token while somebody commits
	mu     sync.Mutex
	queue  []*request // for the next commit
}

// Open opens or makes the ledger in dir.
func Open(dir string) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "state folder: %w", err)
	}
	path := filepath.Join(dir, "platform.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 2 * time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errkind.Errorf(errkind.Unavailable, "%s is in use: another orchestrator runs on this state folder", path)
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "open %s: %w", path, err)
	}
	l := &Ledger{db: db, dir: dir, commit: make(chan struct{}, 1)}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{logBucket, clientBucket, licenceBucket, settingsBucket} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		_ = db.Close()
		return nil, errkind.Errorf(errkind.Unavailable, "prepare %s: %w", path, err)
	}
	return l, nil
}

// Close closes the ledger after transactions in progress.
func (l *Ledger) Close() error { return l.db.Close() }

// Tx is one transaction: all of it becomes durable, or nothing.
type Tx struct{ tx *bolt.Tx }

// Update runs fn and returns once its writes are durable. fn may run again, so
// it has no effects besides tx.
func (l *Ledger) Update(ctx context.Context, fn func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return errkind.Errorf(errkind.Unavailable, "%w", context.Cause(ctx))
	}
	return l.share(fn)
}

// View runs fn on a consistent state.
func (l *Ledger) View(fn func(Tx) error) error {
	return l.db.View(func(tx *bolt.Tx) error { return fn(Tx{tx}) })
}

// Log is the audit log's bucket.
func (t Tx) Log() Bucket { return t.bucket(logBucket) }

func (t Tx) bucket(name string) Bucket { return Bucket{t.tx.Bucket([]byte(name))} }

// Bucket is one bucket of a transaction. Slices it hands out are valid during
// the transaction only.
type Bucket struct{ b *bolt.Bucket }

// Get returns the value, or (nil, nil) where there is none.
func (b Bucket) Get(key []byte) ([]byte, error) { return b.b.Get(key), nil }

// Put stores a copy of the value.
func (b Bucket) Put(key, value []byte) error { return b.b.Put(key, bytes.Clone(value)) }

// Delete removes the value.
func (b Bucket) Delete(key []byte) error { return b.b.Delete(key) }

// Range calls fn for each key with the prefix, in order.
func (b Bucket) Range(prefix []byte, fn func(key, value []byte) error) error {
	c := b.b.Cursor()
	for k, v := c.Seek(prefix); k != nil && len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix); k, v = c.Next() {
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return nil
}

func (b Bucket) getJSON(key string, v any) (bool, error) {
	p := b.b.Get([]byte(key))
	if p == nil {
		return false, nil
	}
	if err := json.Unmarshal(p, v); err != nil {
		return false, errkind.Errorf(errkind.Integrity, "platform.db: %s: %w", key, err)
	}
	return true, nil
}

func (b Bucket) putJSON(key string, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return b.b.Put([]byte(key), p)
}
