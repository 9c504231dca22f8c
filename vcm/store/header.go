package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	bolt "go.etcd.io/bbolt"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// reserved begins the names of the store's own buckets.
const reserved = "\x00"

const (
	headBucket    = reserved + "head"
	headKey       = "header"
	commitmentKey = "commitment"
	headerSize    = 8 + sha256.Size
)

// header is what each commit says about the whole file.
type header struct {
	seq   uint64
	state stateSum
}

// stateSum is the sum, modulo 2^256, of one keyed hash for each sealed value:
// adding and removing a value costs one hash, and who does not know the key
// cannot find another set of values with the same sum.
type stateSum [4]uint64

func (s stateSum) add(h [sha256.Size]byte) stateSum {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], binary.LittleEndian.Uint64(h[8*i:]), carry)
	}
	return s
}

func (s stateSum) sub(h [sha256.Size]byte) stateSum {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], binary.LittleEndian.Uint64(h[8*i:]), borrow)
	}
	return s
}

func (h header) marshal() []byte {
	p := binary.BigEndian.AppendUint64(make([]byte, 0, headerSize), h.seq)
	for _, w := range h.state {
		p = binary.BigEndian.AppendUint64(p, w)
	}
	return p
}

func parseHeader(p []byte) (h header, err error) {
	if len(p) != headerSize {
		return header{}, errkind.Errorf(errkind.Integrity, "the store's header has %d bytes instead of %d", len(p), headerSize)
	}
	h.seq = binary.BigEndian.Uint64(p)
	for i := range h.state {
		h.state[i] = binary.BigEndian.Uint64(p[8+8*i:])
	}
	return h, nil
}

// seals are the keys of a store, all derived from the partition key.
type seals struct {
	values *sealed.Key
	head   *sealed.Key
	state  []byte
}

func newSeals(key []byte) (s seals, err error) {
	if s.values, err = sealed.New(key, "tesserae store values v1"); err != nil {
		return seals{}, err
	}
	if s.head, err = sealed.New(key, "tesserae store header v1"); err != nil {
		return seals{}, err
	}
	s.state, err = sealed.Derive(key, "tesserae store state v1")
	return s, err
}

func place(bucket string, key []byte) []byte { return sealed.Place([]byte(bucket), key) }

// element is the keyed hash of one sealed value in its place.
func (s seals) element(place, box []byte) (h [sha256.Size]byte) {
	mac := hmac.New(sha256.New, s.state)
	_, _ = mac.Write(place)
	_, _ = mac.Write(sealed.ID(box))
	mac.Sum(h[:0])
	return h
}

// write puts h into tx, and on a new file the key's commitment.
func (s seals) write(tx *bolt.Tx, h header) error {
	b, err := tx.CreateBucketIfNotExists([]byte(headBucket))
	if err != nil {
		return err
	}
	if b.Get([]byte(commitmentKey)) == nil {
		if err := b.Put([]byte(commitmentKey), s.values.Commitment()); err != nil {
			return err
		}
	}
	return b.Put([]byte(headKey), s.head.Seal(nil, h.marshal(), []byte(headBucket)))
}

// header reads the header of tx.
func (s seals) header(tx *bolt.Tx) (header, error) {
	b := tx.Bucket([]byte(headBucket))
	if b == nil {
		return header{}, errkind.Errorf(errkind.Integrity, "the store has no header: the file was replaced")
	}
	if err := s.values.CheckCommitment(b.Get([]byte(commitmentKey))); err != nil {
		return header{}, errkind.Errorf(errkind.Integrity, "store: %w", err)
	}
	p, err := s.head.Open(nil, b.Get([]byte(headKey)), []byte(headBucket))
	if err != nil {
		return header{}, errkind.Errorf(errkind.Integrity, "store header: %w", err)
	}
	return parseHeader(p)
}

// verify reads the header and checks that the values are the ones it counted.
func (s seals) verify(tx *bolt.Tx) (header, error) {
	h, err := s.header(tx)
	if err != nil {
		return header{}, err
	}
	var sum stateSum
	err = tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		if string(name) == headBucket {
			return nil
		}
		return b.ForEach(func(k, box []byte) error {
			if len(box) < sealed.Overhead {
				return errkind.Errorf(errkind.Integrity, "the store holds a value that was not sealed, in bucket %s", name)
			}
			sum = sum.add(s.element(place(string(name), k), box))
			return nil
		})
	})
	if err != nil {
		return header{}, err
	}
	if sum != h.state {
		return header{}, errkind.Errorf(errkind.Integrity,
			"the store does not match its newest commit: values were removed, added or replaced by older ones")
	}
	return h, nil
}
