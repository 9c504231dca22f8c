package sts

// Amount16 is the TransferAmount of class 0 subclass 0..3, and the limit of
// class 2 subclass 0 and 6 (IEC 62055-41 6.3): 16 bits, exponent e in bits
// 15..14, mantissa m in bits 13..0, most significant bit first.
//
//	units = 10^e * m + sum over n = 0..e-1 of 16384 * 10^n
//
//	e  first unit   step   last unit
//	0           0      1       16383
//	1       16384     10      180214
//	2      180224    100     1818524
//	3     1818624   1000    18201624
//
// A unit is 0.1 kWh, 0.1 cubic metre or 0.1 minute for credit, 1 W for a limit.
type Amount16 uint16

// MaxUnits is the largest amount that a 16-bit field can carry, in units.
const MaxUnits = 18201624

// EncodeAmount returns the smallest amount that is at least units: amounts are
// rounded up, in the customer's favour. Above MaxUnits it is ErrRange.
func EncodeAmount(units uint64) (Amount16, error) {
	switch {
	case units < 16384:
		return Amount16(units), nil
	case units <= 180214:
		return Amount16(1<<14 | (units-16384+9)/10), nil
	case units <= 1818524:
		// 180215..180223 lie between the ranges and become the first of this one
		return Amount16(2<<14 | (max(units, 180224)-180224+99)/100), nil
	case units <= MaxUnits:
		return Amount16(3<<14 | (max(units, 1818624)-1818624+999)/1000), nil
	}
	return 0, fail(ErrRange, "Amount", "above 18201624 units")
}

// Units returns the amount in units, 0..18201624. This is what a meter credits.
func (a Amount16) Units() uint64 {
	m := uint64(a & 0x3FFF)
	switch a >> 14 {
	case 0:
		return m
	case 1:
		return 10*m + 16384
	case 2:
		return 100*m + 180224
	default:
		return 1000*m + 1818624
	}
}
