package sts

import "strconv"

// EA is the encryption algorithm code, two decimal digits (IEC 62055-41 6.1).
type EA uint8

// The encryption algorithms in use. EA 09 (DES) is withdrawn.
const (
	EA07 EA = 7  // STA: 64-bit decoder key, needs a table set
	EA11 EA = 11 // MISTY1: 128-bit decoder key
)

// Valid reports whether a is EA07 or EA11.
func (a EA) Valid() bool { return a == EA07 || a == EA11 }

// KeySize returns the decoder key length in bytes: 8 for EA07, 16 for EA11,
// 0 for any other code.
func (a EA) KeySize() int {
	switch a {
	case EA07:
		return 8
	case EA11:
		return 16
	}
	return 0
}

// String returns the two digits of the code, such as "07".
func (a EA) String() string { return twoDigits(uint8(a)) }

// DKGA is the decoder key generation algorithm code, two decimal digits
// (IEC 62055-41 6.1 and 6.5).
type DKGA uint8

// The key generation algorithms that are built. DKGA01 is legacy without a
// published vector, DKGA03 was withdrawn in 2018.
const (
	DKGA02 DKGA = 2 // single DES, 64-bit vending key, EA07 only
	DKGA04 DKGA = 4 // HMAC-SHA-256, 160-bit vending key, EA07 and EA11
)

// String returns the two digits of the code, such as "04".
func (g DKGA) String() string { return twoDigits(uint8(g)) }

// KeyType is the KT data element, 2 bits, one decimal digit.
type KeyType uint8

// The decoder key types. A DITK is loaded at manufacture; the others are
// derived from the vending key of the matching type.
const (
	DITK KeyType = 0 // initialisation key; no vending key, no KRN
	DDTK KeyType = 1 // default key, from a VDDK; refuses class 0
	DUTK KeyType = 2 // unique key, from a VUDK
	DCTK KeyType = 3 // common key, from a VCDK; magnetic cards only
)

// Valid reports whether t is 0..3.
func (t KeyType) Valid() bool { return t <= DCTK }

// String returns the name of the decoder key, such as "DUTK".
func (t KeyType) String() string {
	switch t {
	case DITK:
		return "DITK"
	case DDTK:
		return "DDTK"
	case DUTK:
		return "DUTK"
	case DCTK:
		return "DCTK"
	}
	return "KT" + strconv.Itoa(int(t))
}

// VendingName returns the name of the vending key it derives from, such as
// "VUDK", and "" for the DITK, which has none.
func (t KeyType) VendingName() string {
	switch t {
	case DDTK:
		return "VDDK"
	case DUTK:
		return "VUDK"
	case DCTK:
		return "VCDK"
	}
	return ""
}

// AllowsCredit reports whether class 0 tokens may be made or accepted under a
// key of this type: every type except DDTK.
func (t KeyType) AllowsCredit() bool { return t.Valid() && t != DDTK }

// AllowsCarrier reports whether tokens under a key of this type may travel on
// carrier c: a DCTK requires the erasable magnetic card, type 01.
func (t KeyType) AllowsCarrier(c TCT) bool { return t != DCTK || c == TCTMagneticCard }

// PermitsKeyChange reports whether a key-change set may move a meter from a key
// of type from to one of type to. DITK goes to any other type, DDTK to DDTK,
// DUTK and DCTK, DUTK to DUTK and DDTK, DCTK to DCTK.
//
// DDTK to DDTK (a new revision of the default key) is inferred. DCTK to DDTK,
// every path between DUTK and DCTK, and a return to the DITK are not confirmed
// by a public source and therefore not permitted.
func PermitsKeyChange(from, to KeyType) bool {
	switch from {
	case DITK:
		return to == DDTK || to == DUTK || to == DCTK
	case DDTK:
		return to == DDTK || to == DUTK || to == DCTK
	case DUTK:
		return to == DUTK || to == DDTK
	case DCTK:
		return to == DCTK
	}
	return false
}

// TCT is the token carrier type, two decimal digits.
type TCT uint8

// The token carrier types.
const (
	TCTMagneticCard TCT = 1 // erasable magnetic card
	TCTNumeric      TCT = 2 // 20 digits, typed in
)

// String returns the two digits of the code, such as "02".
func (t TCT) String() string { return twoDigits(uint8(t)) }

// SGC is the supply group code, 0..999999: six decimal digits in text and in
// key derivation, a 24-bit binary number in key-change tokens.
type SGC uint32

// MaxSGC is the largest supply group code.
const MaxSGC SGC = 999999

// ParseSGC reads exactly six decimal digits.
func ParseSGC(s string) (SGC, error) {
	v, ok := digits(s, 6)
	if !ok {
		return 0, fail(ErrFormat, "SGC", "expected 6 decimal digits")
	}
	return SGC(v), nil
}

// Valid reports whether s is at most 999999.
func (s SGC) Valid() bool { return s <= MaxSGC }

// String returns the six digits of the code.
func (s SGC) String() string {
	var b [6]byte
	putDigits(b[:], uint64(s))
	return string(b[:])
}

// KRN is the key revision number, 1..9. Successive vending keys of a supply
// group take successive numbers, and 9 is followed by 1.
type KRN uint8

// Valid reports whether n is 1..9.
func (n KRN) Valid() bool { return n >= 1 && n <= 9 }

// Next returns the number that follows n: 2 after 1, 1 after 9.
func (n KRN) Next() KRN {
	if n >= 9 {
		return 1
	}
	return n + 1
}

// TI is the tariff index, 0..99: two decimal digits in key derivation, an 8-bit
// binary number in the second key-change token (99 is 63 hex).
type TI uint8

// Valid reports whether i is at most 99.
func (i TI) Valid() bool { return i <= 99 }

// String returns the two digits of the index.
func (i TI) String() string { return twoDigits(uint8(i)) }

// KEN is the key expiry number, 8 bits: the top 8 bits of the last TID that the
// key may be used for. 255 never expires.
type KEN uint8

// Expired reports whether the top 8 of the 24 TID bits exceed the number. A TID
// whose top bits equal it is still valid.
func (n KEN) Expired(t TID) bool { return uint32(t)>>16 > uint32(n) }

// LastTID returns the greatest TID that is valid under n.
func (n KEN) LastTID() TID { return TID(uint32(n)<<16 | 0xFFFF) }

func twoDigits(v uint8) string {
	if v > 99 {
		return strconv.Itoa(int(v))
	}
	return string([]byte{'0' + v/10, '0' + v%10})
}

// digits reads a number of exactly n decimal digits (n at most 18).
func digits(s string, n int) (uint64, bool) {
	if len(s) != n {
		return 0, false
	}
	var v uint64
	for i := 0; i < n; i++ {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		v = v*10 + uint64(c)
	}
	return v, true
}

// putDigits writes v as zero-padded decimal digits over the whole of dst.
func putDigits(dst []byte, v uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = '0' + byte(v%10)
		v /= 10
	}
}
