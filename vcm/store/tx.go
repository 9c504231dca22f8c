package store

import (
	"bytes"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// Tx is a transaction. It is valid only inside the function it was given to,
// and for one goroutine.
type Tx struct {
	key     *sealed.Key
	log     *logFile
	buckets map[string]*bucket
	batch   *batch // nil in a View
	flight  records
	wrote   bool // something was put
	ended   bool

	// record is the one whose values were read last.
	record    []byte
	recordOff int64
	passing   bool // values are used before the next one is read
}

// Bucket is a transaction's view of one bucket.
type Bucket struct {
	tx   *Tx
	name string
	in   *bucket // nil while the bucket has never held a key
}

func (tx *Tx) end() { tx.ended = true }

// Bucket returns the named bucket; it exists once it holds a key.
func (tx *Tx) Bucket(name string) *Bucket { return &Bucket{tx, name, tx.buckets[name]} }

// Tx is the transaction b belongs to: code that is handed one bucket (the
// security module's) may reach others of the same transaction (the audit log's).
func (b *Bucket) Tx() *Tx { return b.tx }

func (b *Bucket) usable() error {
	switch {
	case b.tx.ended:
		return errkind.Errorf(errkind.Internal, "bucket %s is used after its transaction", b.name)
	case b.name == "":
		return errkind.Errorf(errkind.Internal, "a bucket's name is empty")
	}
	if b.in == nil {
		b.in = b.tx.buckets[b.name]
	}
	return nil
}

func (b *Bucket) writable(key []byte) error {
	if err := b.usable(); err != nil {
		return err
	}
	if b.tx.batch == nil {
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
	if err := b.usable(); err != nil || b.in == nil {
		return nil, err
	}
	it := b.in.get(key)
	if it == nil {
		return nil, nil
	}
	return b.tx.value(it)
}

// value returns an item's value, from the log if it is not in memory.
func (tx *Tx) value(it *item) ([]byte, error) {
	if !it.cold {
		return it.value(), nil
	}
	off, inner := int64(it.at>>innerBits), int(it.at&(1<<innerBits-1))
	if tx.record == nil || tx.recordOff != off {
		var space []byte
		if tx.passing {
			space = tx.record
		}
		_, _, body, ok, err := tx.read(off, space)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, errkind.Errorf(errkind.Integrity, "the store was changed: the record at %d does not open", off)
		}
		tx.record, tx.recordOff = body, off
	}
	end := inner + int(it.size)
	if end > len(tx.record) {
		return nil, errkind.Errorf(errkind.Integrity, "the store was changed: the record at %d is too short", off)
	}
	return tx.record[inner:end:end], nil
}

// read is the log's record, also if it is on its way to the disk.
func (tx *Tx) read(off int64, space []byte) (h recordHeader, t tag, body []byte, ok bool, err error) {
	if len(tx.flight.p) == 0 || off < tx.flight.off {
		return tx.log.record(tx.key, off, space)
	}
	p := tx.flight.p[off-tx.flight.off:]
	if h, ok = parseRecordHeader(p); !ok || len(p) < recordHead+int(h.length) {
		return h, t, nil, false, nil
	}
	t, body, ok = tx.log.open(tx.key, off, p[:recordHead], append(space[:0], p[recordHead:recordHead+int(h.length)]...))
	return h, t, body, ok, nil
}

// Put sets the value of key. Both are copied.
func (b *Bucket) Put(key, value []byte) error {
	if err := b.writable(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return errkind.Errorf(errkind.Invalid, "bucket %s: value of %d bytes, at most %d are possible", b.name, len(value), MaxValue)
	}
	b.tx.wrote = true
	if b.in == nil {
		b.in = b.tx.batch.bucket(b.name)
	}
	b.tx.batch.put(b.in, key, value)
	return nil
}

// Delete removes key; a missing key is no error.
func (b *Bucket) Delete(key []byte) error {
	if err := b.writable(key); err != nil || b.in == nil {
		return err
	}
	b.tx.batch.delete(b.in, key)
	return nil
}

// few is how many items Range takes out at once.
const few = 32

// Range calls fn for each key with the prefix, in order of keys, as the bucket
// was when Range began: fn may put and delete. The slices are valid during the
// transaction and must not be changed.
func (b *Bucket) Range(prefix []byte, fn func(key, value []byte) error) error {
	if err := b.usable(); err != nil || b.in == nil {
		return err
	}
	var buf [few]item
	items, whole := buf[:0], true
	b.in.scan(prefix, func(it *item) bool {
		if !bytes.HasPrefix(it.key(), prefix) {
			return false
		}
		if whole = len(items) < few; whole {
			items = append(items, *it)
		}
		return whole
	})
	if whole {
		for i := range items {
			if err := b.tx.emit(&items[i], fn); err != nil {
				return err
			}
		}
		return nil
	}
	from := b.in
	if b.tx.batch != nil {
		from = from.copy(b.tx.batch.owners)
	}
	var err error
	from.scan(prefix, func(it *item) bool {
		if !bytes.HasPrefix(it.key(), prefix) {
			return false
		}
		err = b.tx.emit(it, fn)
		return err == nil
	})
	return err
}

func (tx *Tx) emit(it *item, fn func(key, value []byte) error) error {
	v, err := tx.value(it)
	if err != nil {
		return err
	}
	return fn(it.key(), v)
}
