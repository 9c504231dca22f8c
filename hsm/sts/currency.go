package sts

import (
	"math/bits"
	"strings"
)

// Amount20 is the TransferAmount of a currency credit (STS 202-1), 20 bits: sign
// s in bit 19, base-10 exponent e in bits 18..14, mantissa m in bits 13..0.
//
//	units = (-1)^s * (10^e * m + sum over n = 0..e-1 of 16384 * 10^n)
//
// A unit is 0.00001 of the base currency.
type Amount20 uint32

// MaxAmount20 is the largest bit pattern of an Amount20.
const MaxAmount20 Amount20 = 0xFFFFF

// Valid reports whether a fits 20 bits.
func (a Amount20) Valid() bool { return a <= MaxAmount20 }

// Currency is an exact amount of money in units of 0.00001 of the base currency:
// an integer of up to 128 bits with a sign. The zero value is zero. Values
// compare with ==.
type Currency struct {
	negative bool // never set for zero
	hi, lo   uint64
}

// CurrencyUnits returns the amount of n units of 0.00001.
func CurrencyUnits(n int64) Currency {
	if n < 0 {
		return Currency{negative: true, lo: -uint64(n)}
	}
	return Currency{lo: uint64(n)}
}

// ParseCurrencyUnits reads a decimal integer of units of 0.00001, with an
// optional minus sign. Beyond 128 bits it is ErrRange.
func ParseCurrencyUnits(s string) (Currency, error) {
	number, negative := strings.CutPrefix(s, "-")
	if number == "" {
		return Currency{}, fail(ErrFormat, "Amount", "expected a decimal integer")
	}
	var u u128
	for i := 0; i < len(number); i++ {
		d := number[i] - '0'
		if d > 9 {
			return Currency{}, fail(ErrFormat, "Amount", "expected a decimal integer")
		}
		var ok bool
		if u, ok = u.timesTenPlus(d); !ok {
			return Currency{}, fail(ErrRange, "Amount", "beyond 128 bits")
		}
	}
	return Currency{negative: negative && u != u128{}, hi: u.hi, lo: u.lo}, nil
}

// Units returns the amount in units of 0.00001 as a decimal integer.
func (c Currency) Units() string {
	var buf [40]byte
	i := c.format(&buf)
	if c.negative {
		i--
		buf[i] = '-'
	}
	return string(buf[i:])
}

// String returns the amount in the base currency with five decimals, such as
// "-12.34500".
func (c Currency) String() string {
	var buf [40]byte
	i := c.format(&buf)
	for i > len(buf)-6 {
		i--
		buf[i] = '0'
	}
	var b strings.Builder
	if c.negative {
		b.WriteByte('-')
	}
	b.Write(buf[i : len(buf)-5])
	b.WriteByte('.')
	b.Write(buf[len(buf)-5:])
	return b.String()
}

// format writes the magnitude right-aligned and returns its start.
func (c Currency) format(buf *[40]byte) int {
	u, i := u128{c.hi, c.lo}, len(buf)
	for {
		var d uint64
		u, d = u.dividedByTen()
		i--
		buf[i] = '0' + byte(d)
		if u == (u128{}) {
			return i
		}
	}
}

// Sign returns -1, 0 or 1.
func (c Currency) Sign() int {
	switch {
	case c.negative:
		return -1
	case c.hi|c.lo == 0:
		return 0
	}
	return 1
}

// Cmp compares c with d: -1 if c is less, 0 if equal, 1 if greater.
func (c Currency) Cmp(d Currency) int {
	if s, t := c.Sign(), d.Sign(); s != t {
		if s < t {
			return -1
		}
		return 1
	}
	r := u128{c.hi, c.lo}.cmp(u128{d.hi, d.lo})
	if c.negative {
		return -r
	}
	return r
}

// Int64 returns the amount in units of 0.00001, and whether it fits.
func (c Currency) Int64() (int64, bool) {
	switch {
	case c.hi != 0:
		return 0, false
	case c.negative:
		return -int64(c.lo), c.lo <= 1<<63
	}
	return int64(c.lo), c.lo < 1<<63
}

// EncodeCurrency returns the smallest amount that is at least c: positive
// magnitudes are rounded up, negative ones down, in the customer's favour.
// Beyond the field (about 1.82e30 of the base currency) it is ErrRange. Zero is
// coded with a positive sign.
func EncodeCurrency(c Currency) (Amount20, error) {
	u := u128{c.hi, c.lo}
	last := scales[31]
	if u.cmp(last.first.plus(last.step.times(16383))) > 0 {
		return 0, fail(ErrRange, "Amount", "beyond the 20-bit currency field")
	}
	e := 31
	for u.cmp(scales[e].first) < 0 {
		e--
	}
	m, rest := u.minus(scales[e].first).dividedByPower(e)
	if c.negative {
		// m is at most 16383 or lies in the gap before the next range, where
		// the magnitude rounds down to the last value of this one
		return Amount20(1<<19 | uint32(e)<<14 | uint32(min(m, 16383))), nil
	}
	if rest {
		m++
	}
	if m > 16383 {
		e, m = e+1, 0
	}
	return Amount20(uint32(e)<<14 | uint32(m)), nil
}

// Currency returns the exact amount that the field carries. This is what a meter
// credits. Bits above 19 are ignored; the pattern of minus zero is zero.
func (a Amount20) Currency() Currency {
	s := scales[a>>14&31]
	u := s.first.plus(s.step.times(uint64(a & 0x3FFF)))
	return Currency{negative: a>>19&1 == 1 && u != u128{}, hi: u.hi, lo: u.lo}
}

// u128 is an unsigned integer of 128 bits.
type u128 struct{ hi, lo uint64 }

func (u u128) cmp(v u128) int {
	switch {
	case u == v:
		return 0
	case u.hi < v.hi || u.hi == v.hi && u.lo < v.lo:
		return -1
	}
	return 1
}

func (u u128) plus(v u128) u128 {
	lo, c := bits.Add64(u.lo, v.lo, 0)
	return u128{u.hi + v.hi + c, lo}
}

func (u u128) minus(v u128) u128 {
	lo, b := bits.Sub64(u.lo, v.lo, 0)
	return u128{u.hi - v.hi - b, lo}
}

// times returns the product, which the callers know to fit.
func (u u128) times(n uint64) u128 {
	hi, lo := bits.Mul64(u.lo, n)
	return u128{u.hi*n + hi, lo}
}

func (u u128) timesTenPlus(d byte) (u128, bool) {
	over, hi := bits.Mul64(u.hi, 10)
	carry, lo := bits.Mul64(u.lo, 10)
	lo, c1 := bits.Add64(lo, uint64(d), 0)
	hi, c2 := bits.Add64(hi, carry, c1)
	return u128{hi, lo}, over == 0 && c2 == 0
}

func (u u128) dividedByTen() (u128, uint64) {
	lo, r := bits.Div64(u.hi%10, u.lo, 10)
	return u128{u.hi / 10, lo}, r
}

// dividedByPower returns the quotient by 10^e, which the callers know to fit 64
// bits, and whether there is a remainder.
func (u u128) dividedByPower(e int) (uint64, bool) {
	rest := false
	for ; e > 0 && u.hi != 0; e-- {
		var r uint64
		u, r = u.dividedByTen()
		rest = rest || r != 0
	}
	for ; e > 0; e-- {
		rest = rest || u.lo%10 != 0
		u.lo /= 10
	}
	return u.lo, rest
}

// scale describes the amounts of one exponent: step 10^e, the first one at the
// sum of all lower ranges.
type scale struct{ first, step u128 }

var scales = makeScales()

func makeScales() (s [32]scale) {
	s[0].step = u128{0, 1}
	for e := 1; e < len(s); e++ {
		s[e].first = s[e-1].first.plus(s[e-1].step.times(16384))
		s[e].step = s[e-1].step.times(10)
	}
	return s
}
