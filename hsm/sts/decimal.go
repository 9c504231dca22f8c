package sts

import (
	"math"
	"strconv"
)

// UnitsOfFloat turns an amount given as binary floating point, in units, into a
// whole number of units. The number is taken as the shortest decimal that names
// the float, rounded to five decimals, which removes binary dust
// (102.00000381 is 102), and then rounded up to the next whole unit, in the
// customer's favour (102.5 is 103). Negative numbers, NaN, infinities and
// amounts above MaxUnits are ErrRange.
func UnitsOfFloat(f float64) (uint64, error) {
	c, err := CurrencyOfFloat(f)
	if err != nil {
		return 0, err
	}
	u := u128{c.hi, c.lo}
	if c.negative || u.cmp(u128{0, MaxUnits * 100000}) > 0 {
		return 0, fail(ErrRange, "Amount", "expected 0..18201624 units")
	}
	return (u.lo + 99999) / 100000, nil
}

// CurrencyOfFloat turns an amount of the base currency given as binary floating
// point into exact units of 0.00001. The number is taken as the shortest decimal
// that names the float, rounded to five decimals, halves upwards, so that binary
// dust never changes an amount (0.1 + 0.2 is 0.30000). NaN, infinities and
// amounts beyond 128 bits of units are ErrRange.
func CurrencyOfFloat(f float64) (Currency, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Currency{}, fail(ErrRange, "Amount", "not a number")
	}
	var buf [32]byte
	text := strconv.AppendFloat(buf[:0], math.Abs(f), 'e', -1, 64)
	// text is d[.ddd]e±xx: collect the digits and the exponent of the last one
	var digits [20]byte
	n, exponent, i := 0, 0, 0
	for ; text[i] != 'e'; i++ {
		if text[i] != '.' {
			digits[n] = text[i] - '0'
			n++
		}
	}
	for _, c := range text[i+2:] {
		exponent = exponent*10 + int(c-'0')
	}
	if text[i+1] == '-' {
		exponent = -exponent
	}
	// the number is digits * 10^(exponent-n+1); in units, 10^5 more
	shift := exponent - n + 1 + 5
	var u u128
	for k := 0; k < n+min(shift, 0); k++ {
		u, _ = u.timesTenPlus(digits[k])
	}
	for ; shift > 0; shift-- {
		var ok bool
		if u, ok = u.timesTenPlus(0); !ok {
			return Currency{}, fail(ErrRange, "Amount", "beyond 128 bits")
		}
	}
	if roundsUp(digits[:n], n+shift, f < 0) {
		u = u.plus(u128{0, 1})
	}
	return Currency{negative: f < 0 && u != u128{}, hi: u.hi, lo: u.lo}, nil
}

// roundsUp decides from the digits cut off at position cut whether the magnitude
// grows: above a half it does, at a half only for positive numbers.
func roundsUp(digits []byte, cut int, negative bool) bool {
	if cut < 0 || cut >= len(digits) || digits[cut] < 5 {
		return false
	}
	if digits[cut] > 5 || !negative {
		return true
	}
	for _, d := range digits[cut+1:] {
		if d != 0 {
			return true
		}
	}
	return false
}

// Float64 returns the nearest binary floating point number of the base currency.
func (c Currency) Float64() float64 {
	if c.hi == 0 && c.lo < 1<<53 {
		// one correctly rounded division: the exact decimal prints back
		f := float64(c.lo) / 100000
		if c.negative {
			return -f
		}
		return f
	}
	f, _ := strconv.ParseFloat(c.String(), 64) // 128 bits are far below the largest float
	return f
}
