package sts

// The issuer identification numbers of MeterPANs (IEC 62055-41 6.1): six digits
// before an 11-digit DRN, four before a 13-digit one.
const (
	IIN6 = "600727"
	IIN4 = "0000"
)

// PAN is a MeterPAN: 18 decimal digits made of the IIN, the decoder reference
// number (DRN) and the PAN check digit.
//
//	11-digit DRN:  600727 | manufacturer 2 | serial 8 | check 1 | PAN check 1
//	13-digit DRN:  0000   | manufacturer 4 | serial 8 | check 1 | PAN check 1
//
// Both check digits are Luhn digits (ISO/IEC 7812-1): the first over the DRN,
// the second over the whole PAN. A PAN from ParsePAN has passed both checks; the
// zero value is no PAN.
type PAN struct {
	d [18]byte // ASCII digits
}

// CommonPAN returns the PAN that stands for every meter in the derivation of
// common keys (key type 3): IIN 600727 and zeros.
func CommonPAN() PAN { return PAN{d: commonPAN} }

var commonPAN = [18]byte{'6', '0', '0', '7', '2', '7', '0', '0', '0', '0', '0', '0', '0', '0', '0', '0', '0', '9'}

// ParsePAN reads an 11- or 13-digit DRN, or an 18-digit MeterPAN, and checks
// every check digit that is present. Anything but decimal digits, another
// length or another IIN is ErrFormat; a wrong check digit is ErrCheckDigit.
func ParsePAN(s string) (PAN, error) {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return PAN{}, fail(ErrFormat, "MeterPAN", "only decimal digits are allowed")
		}
	}
	var p PAN
	switch len(s) {
	case 11:
		copy(p.d[:], IIN6)
		copy(p.d[6:], s)
	case 13:
		copy(p.d[:], IIN4)
		copy(p.d[4:], s)
	case 18:
		copy(p.d[:], s)
	default:
		return PAN{}, fail(ErrFormat, "MeterPAN", "expected a DRN of 11 or 13 digits or a PAN of 18 digits")
	}
	drn := p.drnOffset()
	if drn == 0 {
		return PAN{}, fail(ErrFormat, "IIN", "expected 600727 or 0000")
	}
	if luhn(p.d[drn:17]) != 0 {
		return PAN{}, fail(ErrCheckDigit, "DRN", "the last digit is not the Luhn digit of the others")
	}
	if len(s) < 18 {
		p.d[17] = '0'
		p.d[17] = '0' + (10-luhn(p.d[:]))%10
	}
	if luhn(p.d[:]) != 0 {
		return PAN{}, fail(ErrCheckDigit, "MeterPAN", "the last digit is not the Luhn digit of the others")
	}
	return p, nil
}

// NewPAN builds a PAN from a manufacturer code of 2 or 4 digits and a serial
// number of 8, and computes both check digits.
func NewPAN(manufacturer, serial string) (PAN, error) {
	if len(manufacturer) != 2 && len(manufacturer) != 4 || len(serial) != 8 {
		return PAN{}, fail(ErrFormat, "DRN", "expected a manufacturer code of 2 or 4 digits and a serial number of 8")
	}
	var b [13]byte
	drn := append(append(b[:0], manufacturer...), serial...)
	drn = append(drn, '0')
	drn[len(drn)-1] = '0' + (10-luhn(drn))%10
	return ParsePAN(string(drn))
}

// IsZero reports whether p is the zero value, which is no PAN.
func (p PAN) IsZero() bool { return p == PAN{} }

// String returns the 18 digits, and "" for the zero value.
func (p PAN) String() string {
	if p.IsZero() {
		return ""
	}
	return string(p.d[:])
}

// IIN returns the issuer identification number, "600727" or "0000".
func (p PAN) IIN() string { return string(p.d[:p.drnOffset()]) }

// DRN returns the decoder reference number with its check digit, 11 or 13
// digits.
func (p PAN) DRN() string {
	if p.IsZero() {
		return ""
	}
	return string(p.d[p.drnOffset():17])
}

// Manufacturer returns the manufacturer code, the first 2 or 4 digits of the
// DRN.
func (p PAN) Manufacturer() string {
	if p.IsZero() {
		return ""
	}
	return string(p.d[p.drnOffset():8])
}

// drnOffset returns the length of the IIN, 0 if there is none that is known.
func (p *PAN) drnOffset() int {
	switch {
	case string(p.d[:6]) == IIN6:
		return 6
	case string(p.d[:4]) == IIN4:
		return 4
	}
	return 0
}

// luhn returns the weighted digit sum modulo 10 of ASCII digits whose last one
// is the check digit: 0 if it fits.
func luhn(d []byte) byte {
	sum := 0
	for i := range d {
		v := int(d[len(d)-1-i] - '0')
		if i%2 == 1 {
			v *= 2
			if v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return byte(sum % 10)
}
