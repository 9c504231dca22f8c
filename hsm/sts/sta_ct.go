package sts

import "math/bits"

// staConstantTime computes all 16 nibbles of a round at once with logic: each
// substitution is written as a sum of products of the four input bits (its
// algebraic normal form), and the permutation is a bit network.
type staConstantTime struct {
	// s0[m] holds, in every nibble, the output bits to which the product m of
	// input bits belongs (bit i of m: factor x_i); diff[m] = s0[m] XOR s1[m].
	s0, diff [16]uint64
	net      bitNetwork
}

func newSTAConstantTime(t *Tables) *staConstantTime {
	c := &staConstantTime{net: newBitNetwork(t.perm)}
	a0, a1 := normalForm(t.s0), normalForm(t.s1)
	for m := range 16 {
		c.s0[m] = uint64(a0[m]) * every4
		c.diff[m] = uint64(a0[m]^a1[m]) * every4
	}
	return c
}

// normalForm is the Moebius transform of a substitution.
func normalForm(s [16]byte) [16]byte {
	for step := 1; step < 16; step *= 2 {
		for i := range s {
			if i&step != 0 {
				s[i] ^= s[i^step]
			}
		}
	}
	return s
}

// substitute replaces each nibble by S0, or S1 where the lowest bit of the same
// nibble of k is set.
func (c *staConstantTime) substitute(k, x uint64) uint64 {
	// every bit spread over its nibble
	sel := k & every4 * 15
	x0 := x & every4 * 15
	x1 := x >> 1 & every4 * 15
	x2 := x >> 2 & every4 * 15
	x3 := x >> 3 & every4 * 15
	x01, x02, x12 := x0&x1, x0&x2, x1&x2
	x012 := x01 & x2
	y := c.s0[0] ^ sel&c.diff[0]
	y ^= x0 & (c.s0[1] ^ sel&c.diff[1])
	y ^= x1 & (c.s0[2] ^ sel&c.diff[2])
	y ^= x01 & (c.s0[3] ^ sel&c.diff[3])
	y ^= x2 & (c.s0[4] ^ sel&c.diff[4])
	y ^= x02 & (c.s0[5] ^ sel&c.diff[5])
	y ^= x12 & (c.s0[6] ^ sel&c.diff[6])
	y ^= x012 & (c.s0[7] ^ sel&c.diff[7])
	z := c.s0[8] ^ sel&c.diff[8]
	z ^= x0 & (c.s0[9] ^ sel&c.diff[9])
	z ^= x1 & (c.s0[10] ^ sel&c.diff[10])
	z ^= x01 & (c.s0[11] ^ sel&c.diff[11])
	z ^= x2 & (c.s0[12] ^ sel&c.diff[12])
	z ^= x02 & (c.s0[13] ^ sel&c.diff[13])
	z ^= x12 & (c.s0[14] ^ sel&c.diff[14])
	z ^= x012 & (c.s0[15] ^ sel&c.diff[15])
	return y ^ x3&z
}

func (c *staConstantTime) encrypt(key, x uint64) uint64 {
	k := bits.RotateLeft64(^key, -15)
	for range staRounds {
		x = c.net.apply(c.substitute(k, x))
		k = bits.RotateLeft64(k, 1)
	}
	return x
}

func (c *staConstantTime) decrypt(k, x uint64) uint64 {
	for range staRounds {
		x = c.substitute(k, c.net.reverse(x))
		k = bits.RotateLeft64(k, -1)
	}
	return x
}
