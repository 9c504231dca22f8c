package sts

// EA11 is MISTY1 with 8 rounds (RFC 2994): 128-bit key, one 64-bit block, both
// big-endian. The names FI, FO, FL, EK, S7 and S9 are those of the RFC.
//
// The two variants differ in FI only, the part that substitutes.

// mistyKey is the expanded key: EK[0..7] are the words of the key, EK[8..15]
// their images under FI.
type mistyKey [16]uint16

// mistyTables computes FI with the tables S7 and S9.
type mistyTables struct{}

func (mistyTables) fi(in, key uint16) uint16 {
	d9, d7 := in>>7, in&0x7F
	d9 = misty9[d9&511] ^ d7
	d7 = uint16(misty7[d7]) ^ d9&0x7F
	d7 ^= key >> 9
	d9 ^= key & 0x1FF
	d9 = misty9[d9&511] ^ d7
	return d7<<9 | d9
}

func (c mistyTables) schedule(hi, lo uint64) (k mistyKey) {
	k.load(hi, lo)
	for i := range 8 {
		k[i+8] = c.fi(k[i], k[(i+1)%8])
	}
	return k
}

func (c mistyTables) fo(k *mistyKey, in uint32, i int) uint32 {
	l, r := uint16(in>>16), uint16(in)
	l = c.fi(l^k[i&7], k[(i+5)&7+8]) ^ r
	r = c.fi(r^k[(i+2)&7], k[(i+1)&7+8]) ^ l
	l = c.fi(l^k[(i+7)&7], k[(i+3)&7+8]) ^ r
	r ^= k[(i+4)&7]
	return uint32(r)<<16 | uint32(l)
}

func (c mistyTables) encrypt(hi, lo, block uint64) uint64 {
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

func (c mistyTables) decrypt(hi, lo, block uint64) uint64 {
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

// load fills EK[0..7] with the words of the key.
func (k *mistyKey) load(hi, lo uint64) {
	for i := range 4 {
		k[i] = uint16(hi >> (48 - 16*i))
		k[i+4] = uint16(lo >> (48 - 16*i))
	}
}

// flKeys returns the AND and the OR key of FL number i.
func (k *mistyKey) flKeys(i int) (and, or uint16) {
	if i%2 == 0 {
		return k[i/2&7], k[(i/2+6)&7+8]
	}
	return k[(i/2+2)&7+8], k[(i/2+4)&7]
}

func (k *mistyKey) fl(in uint32, i int) uint32 {
	and, or := k.flKeys(i)
	l, r := uint16(in>>16), uint16(in)
	r ^= l & and
	l ^= r | or
	return uint32(l)<<16 | uint32(r)
}

func (k *mistyKey) flInverse(in uint32, i int) uint32 {
	and, or := k.flKeys(i)
	l, r := uint16(in>>16), uint16(in)
	l ^= r | or
	r ^= l & and
	return uint32(l)<<16 | uint32(r)
}
