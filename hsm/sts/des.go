package sts

import "math/bits"

// desSchedule is the key schedule of single DES (FIPS 46-3), which DKGA02 and the
// 64-bit check values need: for each round, the 6 key bits of each of the 8
// substitutions. Substitutions are shifts of constants by their six input bits,
// so no memory access and no branch depends on key or data.
//
// crypto/des would look its substitutions up in memory and, called through
// cipher.Block, move the blocks to the heap.
type desSchedule [16][8]uint8

// desBox holds, for one substitution, a table of 64 bits for each of its four
// output bits, and the place of that bit in the round function after the
// permutation P.
type desBox [4]struct {
	truth uint64
	place uint8
}

// The numbers below are those of FIPS 46-3, whose bits count from 1 = most
// significant.
var (
	desInitial = newBitNetwork(desInitialPermutation())
	desBoxes   = newDESBoxes()

	desPC1 = [56]uint8{
		57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18,
		10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36,
		63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22,
		14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4,
	}
	desPC2 = [48]uint8{
		14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10,
		23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2,
		41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48,
		44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
	}
	desP = [32]uint8{
		16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10,
		2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25,
	}
	desShifts = [16]int{1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1}
	desS      = [8][4][16]uint8{
		{
			{14, 4, 13, 1, 2, 15, 11, 8, 3, 10, 6, 12, 5, 9, 0, 7},
			{0, 15, 7, 4, 14, 2, 13, 1, 10, 6, 12, 11, 9, 5, 3, 8},
			{4, 1, 14, 8, 13, 6, 2, 11, 15, 12, 9, 7, 3, 10, 5, 0},
			{15, 12, 8, 2, 4, 9, 1, 7, 5, 11, 3, 14, 10, 0, 6, 13},
		},
		{
			{15, 1, 8, 14, 6, 11, 3, 4, 9, 7, 2, 13, 12, 0, 5, 10},
			{3, 13, 4, 7, 15, 2, 8, 14, 12, 0, 1, 10, 6, 9, 11, 5},
			{0, 14, 7, 11, 10, 4, 13, 1, 5, 8, 12, 6, 9, 3, 2, 15},
			{13, 8, 10, 1, 3, 15, 4, 2, 11, 6, 7, 12, 0, 5, 14, 9},
		},
		{
			{10, 0, 9, 14, 6, 3, 15, 5, 1, 13, 12, 7, 11, 4, 2, 8},
			{13, 7, 0, 9, 3, 4, 6, 10, 2, 8, 5, 14, 12, 11, 15, 1},
			{13, 6, 4, 9, 8, 15, 3, 0, 11, 1, 2, 12, 5, 10, 14, 7},
			{1, 10, 13, 0, 6, 9, 8, 7, 4, 15, 14, 3, 11, 5, 2, 12},
		},
		{
			{7, 13, 14, 3, 0, 6, 9, 10, 1, 2, 8, 5, 11, 12, 4, 15},
			{13, 8, 11, 5, 6, 15, 0, 3, 4, 7, 2, 12, 1, 10, 14, 9},
			{10, 6, 9, 0, 12, 11, 7, 13, 15, 1, 3, 14, 5, 2, 8, 4},
			{3, 15, 0, 6, 10, 1, 13, 8, 9, 4, 5, 11, 12, 7, 2, 14},
		},
		{
			{2, 12, 4, 1, 7, 10, 11, 6, 8, 5, 3, 15, 13, 0, 14, 9},
			{14, 11, 2, 12, 4, 7, 13, 1, 5, 0, 15, 10, 3, 9, 8, 6},
			{4, 2, 1, 11, 10, 13, 7, 8, 15, 9, 12, 5, 6, 3, 0, 14},
			{11, 8, 12, 7, 1, 14, 2, 13, 6, 15, 0, 9, 10, 4, 5, 3},
		},
		{
			{12, 1, 10, 15, 9, 2, 6, 8, 0, 13, 3, 4, 14, 7, 5, 11},
			{10, 15, 4, 2, 7, 12, 9, 5, 6, 1, 13, 14, 0, 11, 3, 8},
			{9, 14, 15, 5, 2, 8, 12, 3, 7, 0, 4, 10, 1, 13, 11, 6},
			{4, 3, 2, 12, 9, 5, 15, 10, 11, 14, 1, 7, 6, 0, 8, 13},
		},
		{
			{4, 11, 2, 14, 15, 0, 8, 13, 3, 12, 9, 7, 5, 10, 6, 1},
			{13, 0, 11, 7, 4, 9, 1, 10, 14, 3, 5, 12, 2, 15, 8, 6},
			{1, 4, 11, 13, 12, 3, 7, 14, 10, 15, 6, 8, 0, 5, 9, 2},
			{6, 11, 13, 8, 1, 4, 10, 7, 9, 5, 0, 15, 14, 2, 3, 12},
		},
		{
			{13, 2, 8, 4, 6, 15, 11, 1, 10, 9, 3, 14, 5, 0, 12, 7},
			{1, 15, 13, 8, 10, 3, 7, 4, 12, 5, 6, 11, 0, 14, 9, 2},
			{7, 11, 4, 1, 9, 12, 14, 2, 0, 6, 10, 13, 15, 3, 5, 8},
			{2, 1, 14, 7, 4, 10, 8, 13, 15, 12, 9, 0, 3, 5, 6, 11},
		},
	}
)

// desInitialPermutation returns IP as NewTables writes permutations: the even
// bits of each byte, then the odd ones, become bytes.
func desInitialPermutation() (to [64]byte) {
	for i := range 64 { // i counts from the most significant bit of the result
		row, column := i/8, i%8
		source := 8*(7-column) + (2*(row%4) + 1 - row/4)
		to[63-source] = byte(63 - i)
	}
	return to
}

func newDESBoxes() (boxes [8]desBox) {
	var place [32]uint8
	for i, source := range desP {
		place[source-1] = uint8(31 - i)
	}
	for n := range boxes {
		for x := range 64 {
			value := desS[n][x>>5<<1|x&1][x>>1&15]
			for b := range 4 {
				boxes[n][b].truth |= uint64(value>>(3-b)&1) << x
			}
		}
		for b := range 4 {
			boxes[n][b].place = place[4*n+b]
		}
	}
	return boxes
}

// newDES expands a key; the parity bits have no effect.
func newDES(key uint64) (s desSchedule) {
	var cd uint64
	for _, source := range desPC1 {
		cd = cd<<1 | key>>(64-source)&1
	}
	c, d := uint32(cd>>28), uint32(cd&(1<<28-1))
	for round, shift := range desShifts {
		c = (c<<shift | c>>(28-shift)) & (1<<28 - 1)
		d = (d<<shift | d>>(28-shift)) & (1<<28 - 1)
		cd = uint64(c)<<28 | uint64(d)
		for i, source := range desPC2 {
			s[round][i/6] = s[round][i/6]<<1 | uint8(cd>>(56-source)&1)
		}
	}
	return s
}

// encrypt encrypts one block, big-endian.
func (s *desSchedule) encrypt(block uint64) uint64 {
	block = desInitial.apply(block)
	l, r := uint32(block>>32), uint32(block)
	for round := range s {
		l, r = r, l^desRound(r, &s[round])
	}
	return desInitial.reverse(uint64(r)<<32 | uint64(l))
}

func desRound(r uint32, key *[8]uint8) (f uint32) {
	for n := range desBoxes {
		x := (bits.RotateLeft32(r, 4*n+5) ^ uint32(key[n])) & 63
		for _, out := range &desBoxes[n] {
			f |= uint32(out.truth>>x&1) << (out.place & 31)
		}
	}
	return f
}
