package sts

// dkga02 holds a 64-bit vending key and its DES key schedule.
type dkga02 struct {
	key uint64
	des desSchedule
}

func newDKGA02(key [8]byte) dkga02 {
	key = OddParity(key)
	var k uint64
	for _, b := range key {
		k = k<<8 | uint64(b)
	}
	return dkga02{key: k, des: newDES(k)}
}

// derive computes the key of DKGA02. With d = PANBlock XOR CONTROLBlock it is
// DES(d) XOR d XOR vending key, where each block is 16 digits taken as nibbles:
//
//	PANBlock      the 16 digits of the MeterPAN before its check digit
//	CONTROLBlock  KT 1, SGC 6, TI 2, KRN 1, F F F F F F
func (d *dkga02) derive(p *KeyParams) uint64 {
	var pan uint64
	for _, c := range p.PAN.d[1:17] {
		pan = pan<<4 | uint64(c-'0')
	}
	sgc, bcd := uint64(p.SGC), uint64(0)
	for i := range 6 {
		bcd |= sgc % 10 << (4 * i)
		sgc /= 10
	}
	control := uint64(p.KT)<<60 | bcd<<36 | uint64(p.TI/10)<<32 | uint64(p.TI%10)<<28 | uint64(p.KRN)<<24 | 0xFFFFFF
	x := pan ^ control
	return d.des.encrypt(x) ^ x ^ d.key
}
