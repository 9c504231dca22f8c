package sts

import (
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"sync"
)

// Tables is an STA table set (EA07): two substitutions of 4 bits and a
// permutation of 64 bits. It is validated on construction, immutable and safe
// for concurrent use.
//
// The production tables of the STS Association are not part of this package;
// meters in the field accept EA07 tokens only if an entitled operator loads them.
type Tables struct {
	name   string
	s0, s1 [16]byte
	perm   [64]byte
	fast   *staTables
	slow   *staConstantTime
}

// NewTables validates a table set: s1 must be the inverse of s0, and perm a
// permutation of 0..63. perm[i] is the position to which bit i goes, counted
// from the least significant bit.
func NewTables(name string, s0, s1 [16]byte, perm [64]byte) (*Tables, error) {
	var seen uint64
	for i := range s0 {
		if s0[i] > 15 || s1[i] > 15 || int(s1[s0[i]]) != i {
			return nil, fail(ErrTables, "sub1", "expected the inverse of sub0, numbers 0..15")
		}
	}
	for _, to := range perm {
		if to > 63 || seen>>to&1 == 1 {
			return nil, fail(ErrTables, "perm", "expected a permutation of 0..63")
		}
		seen |= 1 << to
	}
	t := &Tables{name: name, s0: s0, s1: s1, perm: perm}
	t.fast = newSTATables(t)
	t.slow = newSTAConstantTime(t)
	return t, nil
}

// ParseTables reads a table set from JSON: an object with the members sub0 and
// sub1, 16 numbers each, and perm, 64 numbers, as NewTables takes them. Other
// members are ignored.
func ParseTables(name string, data []byte) (*Tables, error) {
	var file struct{ Sub0, Sub1, Perm []int }
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fail(ErrFormat, "tables", "expected a JSON object with sub0, sub1 and perm: "+err.Error())
	}
	var s0, s1 [16]byte
	var perm [64]byte
	for _, part := range []struct {
		field   string
		numbers []int
		out     []byte
	}{{"sub0", file.Sub0, s0[:]}, {"sub1", file.Sub1, s1[:]}, {"perm", file.Perm, perm[:]}} {
		if len(part.numbers) != len(part.out) {
			return nil, fail(ErrTables, part.field, "expected "+strconv.Itoa(len(part.out))+" numbers, found "+strconv.Itoa(len(part.numbers)))
		}
		for i, n := range part.numbers {
			if n < 0 || n > 255 {
				return nil, fail(ErrTables, part.field, strconv.Itoa(n)+" is out of range")
			}
			part.out[i] = byte(n)
		}
	}
	return NewTables(name, s0, s1, perm)
}

// IECSample returns the explanatory table set printed in IEC 62055-41, named
// "iec-sample". The STS Association does not allow it in finished products.
func IECSample() *Tables { return iecSample() }

// iecSample is built on first use: most programs that link this package are not
// modules.
var iecSample = sync.OnceValue(func() *Tables {
	t, err := NewTables("iec-sample",
		[16]byte{12, 10, 8, 4, 3, 15, 0, 2, 14, 1, 5, 13, 6, 9, 7, 11},
		[16]byte{6, 9, 7, 4, 3, 10, 12, 14, 2, 13, 1, 15, 0, 11, 8, 5},
		[64]byte{
			29, 27, 34, 9, 16, 62, 55, 2, 40, 49, 38, 25, 33, 61, 30, 23,
			1, 41, 21, 57, 42, 15, 5, 58, 19, 53, 22, 17, 48, 28, 24, 39,
			3, 60, 36, 14, 11, 52, 54, 12, 31, 51, 10, 26, 0, 45, 37, 43,
			44, 6, 59, 4, 7, 35, 56, 50, 13, 18, 32, 47, 46, 63, 20, 8,
		})
	if err != nil {
		panic(err) // constants that a test verifies
	}
	return t
})

// Name returns the name given on construction.
func (t *Tables) Name() string { return t.name }

// Fingerprint returns the SHA-256 of the 96 bytes sub0, sub1, perm. It does not
// depend on the name or on how a file was written.
func (t *Tables) Fingerprint() [32]byte {
	var b [96]byte
	copy(b[:], t.s0[:])
	copy(b[16:], t.s1[:])
	copy(b[32:], t.perm[:])
	return sha256.Sum256(b[:])
}
