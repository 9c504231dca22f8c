package sts

import (
	"fmt"
	"io"
)

// VendingKey is a vending key made ready for one key generation algorithm: the
// key schedule or the HMAC state is computed once. It is safe for concurrent use
// and immutable but for Wipe; formatting it never shows the key.
type VendingKey struct {
	dkga DKGA
	des  dkga02
	hmac dkga04
}

// NewVendingKey takes the bytes of a vending key: 8 with odd parity for DKGA02
// (a wrong parity bit is corrected), 20 for DKGA04. The slice is not kept.
func NewVendingKey(g DKGA, key []byte) (*VendingKey, error) {
	v := &VendingKey{dkga: g}
	switch g {
	case DKGA02:
		if len(key) != 8 {
			return nil, fail(ErrKey, "VendingKey", "DKGA02 needs 8 bytes")
		}
		v.des = newDKGA02([8]byte(key))
	case DKGA04:
		if len(key) != 20 {
			return nil, fail(ErrKey, "VendingKey", "DKGA04 needs 20 bytes")
		}
		v.hmac = newDKGA04([20]byte(key))
	default:
		return nil, fail(ErrKey, "DKGA", "expected 2 or 4")
	}
	return v, nil
}

// DKGA returns the key generation algorithm.
func (v *VendingKey) DKGA() DKGA { return v.dkga }

// KeyParams are the data elements that, with the vending key, determine a
// decoder key. DKGA02 does not use BaseDate, which may then be any valid one.
type KeyParams struct {
	PAN      PAN      // for key type 3 the common PAN is used in its place
	EA       EA       // EA07, or EA11 with DKGA04
	KT       KeyType  // 1..3
	SGC      SGC      // 0..999999
	KRN      KRN      // 1..9
	TI       TI       // 0..99
	BaseDate BaseDate // 1993, 2014, 2035
}

func (p *KeyParams) check(g DKGA) error {
	switch {
	case p.PAN.IsZero():
		return fail(ErrRange, "MeterPAN", "missing")
	case !p.EA.Valid():
		return fail(ErrRange, "EA", "expected 7 or 11")
	case p.EA == EA11 && g == DKGA02:
		return fail(ErrKey, "DKGA", "DKGA02 makes keys of 64 bits, EA11 needs DKGA04")
	case p.KT == DITK:
		return fail(ErrKey, "KT", "a DITK does not derive from a vending key")
	case !p.KT.Valid():
		return fail(ErrRange, "KT", "expected 1..3")
	case !p.SGC.Valid():
		return fail(ErrRange, "SGC", "expected 0..999999")
	case !p.KRN.Valid():
		return fail(ErrRange, "KRN", "expected 1..9")
	case !p.TI.Valid():
		return fail(ErrRange, "TI", "expected 0..99")
	case !p.BaseDate.Valid():
		return fail(ErrRange, "BDT", "expected 1993, 2014 or 2035")
	}
	return nil
}

// DecoderKey derives the key of one meter. It does not allocate.
func (v *VendingKey) DecoderKey(p KeyParams) (DecoderKey, error) {
	if err := p.check(v.dkga); err != nil {
		return DecoderKey{}, err
	}
	if p.KT == DCTK {
		p.PAN.d = commonPAN
	}
	if v.dkga == DKGA02 {
		return DecoderKey{ea: p.EA, kt: p.KT, lo: v.des.derive(&p)}, nil
	}
	hi, lo := v.hmac.derive(&p)
	return DecoderKey{ea: p.EA, kt: p.KT, hi: hi, lo: lo}, nil
}

// Wipe overwrites the key. Keys derived later are wrong, not refused; nobody may
// use v while Wipe runs.
func (v *VendingKey) Wipe() {
	v.des, v.hmac = dkga02{}, dkga04{}
}

// Format prints the algorithm and nothing of the key, for every verb.
func (v *VendingKey) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "VendingKey(DKGA"+v.dkga.String()+")")
}
