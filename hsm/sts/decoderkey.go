package sts

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
)

// DecoderKey is the key of one meter: 64 bits for EA07, 128 bits for EA11,
// big-endian, with the algorithm and the key type it is for. It is a small value
// that may be copied and cached; formatting it never shows the key. The zero
// value is no key.
type DecoderKey struct {
	hi, lo uint64 // EA07 uses lo
	ea     EA
	kt     KeyType
}

// NewDecoderKey takes the bytes of a key: 8 for EA07, 16 for EA11. All values
// are allowed; whether an EA07 key must have odd parity is up to its source (see
// OddParity).
func NewDecoderKey(ea EA, kt KeyType, key []byte) (DecoderKey, error) {
	switch {
	case !ea.Valid():
		return DecoderKey{}, fail(ErrRange, "EA", "expected 7 or 11")
	case !kt.Valid():
		return DecoderKey{}, fail(ErrRange, "KT", "expected 0..3")
	case len(key) != ea.KeySize():
		return DecoderKey{}, fail(ErrKey, "DecoderKey", "expected 8 bytes for EA07 and 16 for EA11")
	}
	k := DecoderKey{ea: ea, kt: kt}
	if ea == EA11 {
		k.hi = binary.BigEndian.Uint64(key)
		key = key[8:]
	}
	k.lo = binary.BigEndian.Uint64(key)
	return k, nil
}

// EA returns the encryption algorithm of the key.
func (k DecoderKey) EA() EA { return k.ea }

// KeyType returns the key type.
func (k DecoderKey) KeyType() KeyType { return k.kt }

// IsZero reports whether k is the zero value.
func (k DecoderKey) IsZero() bool { return k.ea == 0 }

// AppendBytes appends the key, 8 or 16 bytes, to dst.
func (k DecoderKey) AppendBytes(dst []byte) []byte {
	if k.ea == EA11 {
		dst = binary.BigEndian.AppendUint64(dst, k.hi)
	}
	if k.ea.Valid() {
		dst = binary.BigEndian.AppendUint64(dst, k.lo)
	}
	return dst
}

// Equal reports whether both are the same key for the same algorithm and key
// type, in time that does not depend on the key.
func (k DecoderKey) Equal(other DecoderKey) bool {
	var a, b [16]byte
	x, y := k.AppendBytes(a[:0]), other.AppendBytes(b[:0])
	return k.ea == other.ea && k.kt == other.kt && subtle.ConstantTimeCompare(x, y) == 1
}

// Format prints algorithm, key type and nothing of the key, for every verb.
func (k DecoderKey) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "DecoderKey(EA"+k.ea.String()+" "+k.kt.String()+")")
}

// words returns the key in words of 32 bits, most significant first: two for
// EA07, four for EA11.
func (k DecoderKey) words() [4]uint32 {
	if k.ea == EA07 {
		return [4]uint32{uint32(k.lo >> 32), uint32(k.lo)}
	}
	return [4]uint32{uint32(k.hi >> 32), uint32(k.hi), uint32(k.lo >> 32), uint32(k.lo)}
}

func keyOfWords(ea EA, kt KeyType, w [4]uint32) DecoderKey {
	k := DecoderKey{ea: ea, kt: kt, lo: uint64(w[0])<<32 | uint64(w[1])}
	if ea == EA11 {
		k.hi, k.lo = k.lo, uint64(w[2])<<32|uint64(w[3])
	}
	return k
}

// OddParity returns the key with the lowest bit of every byte set so that the
// byte has an odd number of ones, as DES keys have.
func OddParity(key [8]byte) [8]byte {
	for i, b := range key {
		p := b >> 1
		p ^= p >> 4
		p ^= p >> 2
		p ^= p >> 1
		key[i] = b&^1 | ^p&1
	}
	return key
}
