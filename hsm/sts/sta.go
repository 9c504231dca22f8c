package sts

import "math/bits"

// EA07 is the STA algorithm: a 64-bit key, one 64-bit block, 16 rounds of a
// substitution of the 16 nibbles and a permutation of the 64 bits. Bit 0 is the
// least significant one.
//
// Encryption starts with k = the complement of the key rotated right by 12. Each
// round replaces nibble n (bits 4n..4n+3) by S0 or S1 of it, as bit 4n+3 of k is
// 0 or 1, moves bit i to P[i], and rotates k left by 1. Decryption starts with
// k = key; each round moves the bits back, replaces nibble n by S0 or S1 of it,
// as bit 4n of k is 0 or 1, and rotates k right by 1. As S1 is the inverse of S0
// and k is the complement, each round undoes one of encryption.

const staRounds = 16

// staTables is the table-driven variant. Substitution and permutation of a
// nibble are one table of 32 words: index is the selecting key bit (times 16)
// and the nibble, the word is its four bits in their places after the move.
type staTables struct {
	enc [16][32]uint64 // substitute, then permute
	dec [16][32]uint64 // substitute, then permute back
	sub [32]uint64     // substitute only
	net bitNetwork     // the permutation alone
}

func newSTATables(t *Tables) *staTables {
	f := &staTables{net: newBitNetwork(t.perm)}
	var back [64]byte
	for from, to := range t.perm {
		back[to] = byte(from)
	}
	for i := range 32 {
		s := t.s0[i&15]
		if i >= 16 {
			s = t.s1[i&15]
		}
		f.sub[i] = uint64(s)
		for n := range 16 {
			for b := range 4 {
				bit := uint64(s >> b & 1)
				f.enc[n][i] |= bit << t.perm[4*n+b]
				f.dec[n][i] |= bit << back[4*n+b]
			}
		}
	}
	return f
}

// every4 has the lowest bit of each nibble.
const every4 = 0x1111111111111111

func (f *staTables) encrypt(key, x uint64) uint64 {
	// selectors stand in the lowest bit of each nibble
	k := bits.RotateLeft64(^key, -15)
	for range staRounds {
		x = staRound(&f.enc, k, x)
		k = bits.RotateLeft64(k, 1)
	}
	return x
}

func (f *staTables) decrypt(k, x uint64) uint64 {
	x = f.net.reverse(x)
	for range staRounds - 1 {
		x = staRound(&f.dec, k, x)
		k = bits.RotateLeft64(k, -1)
	}
	var y uint64
	for n := 0; n < 64; n += 4 {
		y |= f.sub[k>>n&1<<4|x>>n&15] << n
	}
	return y
}

func staRound(t *[16][32]uint64, k, x uint64) uint64 {
	return t[0][k&1<<4|x&15] ^
		t[1][k>>4&1<<4|x>>4&15] ^
		t[2][k>>8&1<<4|x>>8&15] ^
		t[3][k>>12&1<<4|x>>12&15] ^
		t[4][k>>16&1<<4|x>>16&15] ^
		t[5][k>>20&1<<4|x>>20&15] ^
		t[6][k>>24&1<<4|x>>24&15] ^
		t[7][k>>28&1<<4|x>>28&15] ^
		t[8][k>>32&1<<4|x>>32&15] ^
		t[9][k>>36&1<<4|x>>36&15] ^
		t[10][k>>40&1<<4|x>>40&15] ^
		t[11][k>>44&1<<4|x>>44&15] ^
		t[12][k>>48&1<<4|x>>48&15] ^
		t[13][k>>52&1<<4|x>>52&15] ^
		t[14][k>>56&1<<4|x>>56&15] ^
		t[15][k>>60&1<<4|x>>60&15]
}
