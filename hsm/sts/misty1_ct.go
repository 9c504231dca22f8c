package sts

import "math/bits"

// mistyConstantTime computes S7 and S9 with arithmetic, so that no memory access
// and no branch depends on key or data. S9 has algebraic degree 2 and S7 degree
// 3: each output bit is the parity of a fixed selection of the products of input
// bits. All 45 (or 63) products fit one word, and rotations of the input bring
// the factors together.
type mistyConstantTime struct{}

// The constants in s7 and s9 select, for each output bit, the products it sums:
// the input bits first, then the products of bits at distance 1, 2, ..., then
// (s7) those of three bits. They follow from the tables of RFC 2994 by the
// Moebius transform; a test compares every value.

// parity returns the XOR of the bits of v.
func parity(v uint64) uint64 { return uint64(bits.OnesCount64(v) & 1) }

func s7(x uint64) uint64 {
	r1 := (x>>1 | x<<6) & 127
	r2 := (x>>2 | x<<5) & 127
	r3 := (x>>3 | x<<4) & 127
	r4 := (x>>4 | x<<3) & 127
	r5 := (x>>5 | x<<2) & 127
	p1, p2 := x&r1, x&r2
	v := x | p1<<7 | p2<<14 | (x&r3)<<21 |
		(p1&r2)<<28 | (p1&r3)<<35 | (p1&r4)<<42 | (p1&r5)<<49 | (p2&r4)<<56
	return 0x1B ^
		(parity(v&0x204020060C008801) | parity(v&0x1020100207006440)<<1 | parity(v&0x04090480815C0110)<<2) ^
		(parity(v&0x4080400018211003)<<3 | parity(v&0x0810090102900220)<<4 | parity(v&0x01028000306A2007)<<5) ^
		(parity(v&0x0205800040BE0088) << 6)
}

func s9(x uint64) uint64 {
	v := x | (x&(x>>1|x<<8))<<9 | (x&(x>>2|x<<7))<<18 | (x&(x>>3|x<<6))<<27 | (x&(x>>4|x<<5))<<36
	return 0x1C3 ^
		(parity(v&0x1FF000000000) | parity(v&0x1043000E3888)<<1 | parity(v&0x009600187310)<<2) ^
		(parity(v&0x012C0030E421)<<3 | parity(v&0x02480861C842)<<4 | parity(v&0x048018C39084)<<5) ^
		(parity(v&0x090031832308)<<6 | parity(v&0x0410C6008E22)<<7 | parity(v&0x120063024611)<<8)
}

func (mistyConstantTime) fi(in, key uint16) uint16 {
	d9, d7 := uint64(in>>7), uint64(in&0x7F)
	d9 = s9(d9) ^ d7
	d7 = s7(d7) ^ d9&0x7F
	d7 ^= uint64(key >> 9)
	d9 ^= uint64(key & 0x1FF)
	d9 = s9(d9) ^ d7
	return uint16(d7<<9 | d9)
}

func (c mistyConstantTime) schedule(hi, lo uint64) (k mistyKey) {
	k.load(hi, lo)
	for i := range 8 {
		k[i+8] = c.fi(k[i], k[(i+1)%8])
	}
	return k
}

func (c mistyConstantTime) fo(k *mistyKey, in uint32, i int) uint32 {
	l, r := uint16(in>>16), uint16(in)
	l = c.fi(l^k[i], k[(i+5)%8+8]) ^ r
	r = c.fi(r^k[(i+2)%8], k[(i+1)%8+8]) ^ l
	l = c.fi(l^k[(i+7)%8], k[(i+3)%8+8]) ^ r
	r ^= k[(i+4)%8]
	return uint32(r)<<16 | uint32(l)
}

func (c mistyConstantTime) encrypt(hi, lo, block uint64) uint64 {
	k := c.schedule(hi, lo)
	d0, d1 := uint32(block>>32), uint32(block)
	for i := 0; i < 8; i += 2 {
		d0 = k.fl(d0, i)
		d1 = k.fl(d1, i+1)
		d1 ^= c.fo(&k, d0, i)
		d0 ^= c.fo(&k, d1, i+1)
	}
	return uint64(k.fl(d1, 9))<<32 | uint64(k.fl(d0, 8))
}

func (c mistyConstantTime) decrypt(hi, lo, block uint64) uint64 {
	k := c.schedule(hi, lo)
	d1, d0 := k.flInverse(uint32(block>>32), 9), k.flInverse(uint32(block), 8)
	for i := 6; i >= 0; i -= 2 {
		d0 ^= c.fo(&k, d1, i+1)
		d1 ^= c.fo(&k, d0, i)
		d0 = k.flInverse(d0, i)
		d1 = k.flInverse(d1, i+1)
	}
	return uint64(d0)<<32 | uint64(d1)
}
