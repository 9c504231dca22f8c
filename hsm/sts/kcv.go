package sts

// KCV is a key check value: the first 3 bytes of a known computation under the
// key. Two keys with different check values are different; it reveals 24 bits of
// no use for finding the key.
type KCV [3]byte

// String returns six hexadecimal digits, upper case.
func (c KCV) String() string {
	const digits = "0123456789ABCDEF"
	var b [6]byte
	for i, v := range c {
		b[2*i], b[2*i+1] = digits[v>>4], digits[v&15]
	}
	return string(b[:])
}

// KCV returns the check value of a vending key. For DKGA02 it is the first 3
// bytes of DES over eight zero bytes, the usual convention. For DKGA04 it is the
// first 3 bytes of HMAC-SHA-256 over the empty message; no public source gives
// the standard's rule, this is our choice.
func (v *VendingKey) KCV() KCV {
	if v.dkga == DKGA02 {
		return kcvOf(v.des.des.encrypt(0))
	}
	return v.hmac.kcv
}

// KCV returns the check value of a decoder key: for EA07 the first 3 bytes of
// DES over eight zero bytes, the usual convention; for EA11 the first 3 bytes of
// MISTY1 over eight zero bytes, which is our choice, as no public source gives
// the standard's rule.
func (k DecoderKey) KCV() KCV {
	if k.ea == EA07 {
		s := newDES(k.lo)
		return kcvOf(s.encrypt(0))
	}
	return kcvOf(mistyConstantTime{}.encrypt(k.hi, k.lo, 0))
}

func kcvOf(block uint64) KCV {
	return KCV{byte(block >> 56), byte(block >> 48), byte(block >> 40)}
}
