package store

import (
	"bytes"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// Tx is a transaction. It is valid only inside the function it was given to,
// and for one goroutine.
type Tx struct {
	s        *Store
	bolt     *bolt.Tx
	writable bool
	ended    bool
	own      overlay // this transaction's writes
	batch    overlay // those of earlier transactions in the same commit
}

// Bucket is a transaction's view of one bucket.
type Bucket struct {
	tx   *Tx
	name string
}

// overlay holds writes that are not in the file yet: bucket, key, value.
type overlay map[string]map[string]staged

type staged struct {
	value   []byte
	deleted bool
}

func (o overlay) get(bucket string, key []byte) (staged, bool) {
	v, ok := o[bucket][string(key)]
	return v, ok
}

func (o overlay) set(bucket, key string, v staged) {
	b := o[bucket]
	if b == nil {
		b = map[string]staged{}
		o[bucket] = b
	}
	b[key] = v
}

// merge moves from's writes over o's.
func (o overlay) merge(from overlay) {
	for bucket, keys := range from {
		for key, v := range keys {
			o.set(bucket, key, v)
		}
	}
}

// growth is the most space the writes can need.
func (o overlay) growth() (n int64) {
	for _, keys := range o {
		for key, v := range keys {
			if !v.deleted {
				n += int64(len(key)+len(v.value)) + sealed.Overhead + elementCost
			}
		}
	}
	return n
}

// elementCost is what bbolt spends on one key besides its bytes.
const elementCost = 16

func (tx *Tx) end() { tx.ended = true }

// Bucket returns the named bucket; it exists once it holds a key.
func (tx *Tx) Bucket(name string) *Bucket { return &Bucket{tx, name} }

// Tx returns the transaction the bucket belongs to.
func (b *Bucket) Tx() *Tx { return b.tx }

func (b *Bucket) usable() error {
	switch {
	case b.tx.ended:
		return errkind.Errorf(errkind.Internal, "bucket %s is used after its transaction", b.name)
	case b.name == "" || strings.HasPrefix(b.name, reserved):
		return errkind.Errorf(errkind.Internal, "bucket name %q is empty or reserved", b.name)
	}
	return nil
}

func (b *Bucket) writable(key []byte) error {
	if err := b.usable(); err != nil {
		return err
	}
	if !b.tx.writable {
		return errkind.Errorf(errkind.Internal, "write to bucket %s in a read transaction", b.name)
	}
	if len(key) == 0 || len(key) > MaxKey {
		return errkind.Errorf(errkind.Invalid, "bucket %s: key of %d bytes, 1 to %d are possible", b.name, len(key), MaxKey)
	}
	return nil
}

// Get returns the value of key, nil if there is none. The slice is valid during
// the transaction and must not be changed.
func (b *Bucket) Get(key []byte) ([]byte, error) {
	if err := b.usable(); err != nil {
		return nil, err
	}
	for _, o := range []overlay{b.tx.own, b.tx.batch} {
		if v, ok := o.get(b.name, key); ok {
			return v.value, nil
		}
	}
	bb := b.tx.bolt.Bucket([]byte(b.name))
	if bb == nil {
		return nil, nil
	}
	box := bb.Get(key)
	if box == nil {
		return nil, nil
	}
	return b.open(key, box)
}

func (b *Bucket) open(key, box []byte) ([]byte, error) {
	v, err := b.tx.s.seals.values.Open([]byte{}, box, place(b.name, key))
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "store: bucket %s: %w", b.name, err)
	}
	return v, nil
}

// Put sets the value of key. Both are copied.
func (b *Bucket) Put(key, value []byte) error {
	if err := b.writable(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return errkind.Errorf(errkind.Invalid, "bucket %s: value of %d bytes, at most %d are possible", b.name, len(value), MaxValue)
	}
	b.tx.own.set(b.name, string(key), staged{value: append([]byte{}, value...)})
	return nil
}

// Delete removes key; a missing key is no error.
func (b *Bucket) Delete(key []byte) error {
	if err := b.writable(key); err != nil {
		return err
	}
	b.tx.own.set(b.name, string(key), staged{deleted: true})
	return nil
}

// Range calls fn for each key with the prefix, in order of keys, as the bucket
// was when Range began: fn may put and delete.
func (b *Bucket) Range(prefix []byte, fn func(key, value []byte) error) error {
	if err := b.usable(); err != nil {
		return err
	}
	pending := b.pending(prefix)
	emit := func(p pendingKey) error {
		if p.deleted {
			return nil
		}
		return fn([]byte(p.key), p.value)
	}
	if bb := b.tx.bolt.Bucket([]byte(b.name)); bb != nil {
		c := bb.Cursor()
		for k, box := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, box = c.Next() {
			for len(pending) > 0 && pending[0].key < string(k) {
				if err := emit(pending[0]); err != nil {
					return err
				}
				pending = pending[1:]
			}
			if len(pending) > 0 && pending[0].key == string(k) {
				continue // the newer value comes in its turn
			}
			v, err := b.open(k, box)
			if err != nil {
				return err
			}
			if err := fn(bytes.Clone(k), v); err != nil {
				return err
			}
		}
	}
	for _, p := range pending {
		if err := emit(p); err != nil {
			return err
		}
	}
	return nil
}

type pendingKey struct {
	key string
	staged
}

// pending is what the overlays hold under prefix, sorted.
func (b *Bucket) pending(prefix []byte) []pendingKey {
	newest := map[string]staged{}
	for _, o := range []overlay{b.tx.batch, b.tx.own} {
		for k, v := range o[b.name] {
			if strings.HasPrefix(k, string(prefix)) {
				newest[k] = v
			}
		}
	}
	out := make([]pendingKey, 0, len(newest))
	for k, v := range newest {
		out = append(out, pendingKey{k, v})
	}
	slices.SortFunc(out, func(x, y pendingKey) int { return strings.Compare(x.key, y.key) })
	return out
}
