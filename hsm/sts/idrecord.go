package sts

import (
	"strings"
	"time"
)

// DOE is the date of expiry of a meter card, year and month. The zero value
// means none ("0000").
type DOE struct {
	Year  uint8 // 0..99; 93..99 are 1993..1999, the others 2000..2092
	Month uint8 // 1..12
}

// IsZero reports whether there is no date of expiry.
func (d DOE) IsZero() bool { return d == DOE{} }

// String returns the four digits YYMM, "0000" for none.
func (d DOE) String() string {
	return twoDigits(d.Year) + twoDigits(d.Month)
}

// Expired reports whether t is in the month of expiry or later (UTC). The
// standard's text on the month itself is not public; this is our choice.
func (d DOE) Expired(t time.Time) bool {
	if d.IsZero() {
		return false
	}
	year := 2000 + int(d.Year)
	if d.Year >= 93 {
		year -= 100
	}
	return !t.Before(time.Date(year, time.Month(d.Month), 1, 0, 0, 0, 0, time.UTC))
}

func (d DOE) valid() bool {
	return d.IsZero() || d.Year <= 99 && d.Month >= 1 && d.Month <= 12
}

// IDRecord is the identity of a meter on its card (IEC 62055-41 and, for the
// magnetic track, IEC 62055-51). Any EA and TCT of two digits are accepted.
type IDRecord struct {
	PAN PAN // 18 digits
	DOE DOE // 4 digits
	TCT TCT // 2 digits
	EA  EA  // 2 digits
	SGC SGC // 6 digits
	TI  TI  // 2 digits
	KRN KRN // 1 digit, 1..9
}

// ParseIDRecord reads the 35 digits
//
//	MeterPAN 18, DOE 4 (YYMM, 0000 none), TCT 2, EA 2, SGC 6, TI 2, KRN 1
func ParseIDRecord(s string) (IDRecord, error) {
	if len(s) != 35 {
		return IDRecord{}, fail(ErrFormat, "IDRecord", "expected 35 digits")
	}
	return parseRecord(s[:18], s[18:22], s[22:])
}

// String returns the 35 digits of ParseIDRecord.
func (r IDRecord) String() string { return r.PAN.String() + r.DOE.String() + r.tail() }

// ParseRecord2 reads the track 2 form of a magnetic card,
//
//	; MeterPAN = DOE TCT EA SGC TI KRN ?
//
// where an unused date of expiry is one more "=" in the place of its digits.
// The sentinels ";" and "?" may be missing; an LRC character is not allowed. No
// real record is public, so two variants are read as well: an unused date left
// out altogether, and a "=" after a date that is there.
func ParseRecord2(s string) (IDRecord, error) {
	s = strings.TrimPrefix(s, ";")
	s = strings.TrimSuffix(s, "?")
	pan, rest, ok := strings.Cut(s, "=")
	if !ok {
		return IDRecord{}, fail(ErrFormat, "Record2", "expected = after the MeterPAN")
	}
	doe := "0000"
	switch {
	case len(pan) != 18:
		return IDRecord{}, fail(ErrFormat, "Record2", "expected a MeterPAN of 18 digits")
	case len(rest) == 14 && rest[0] == '=':
		rest = rest[1:]
	case len(rest) == 17:
		doe, rest = rest[:4], rest[4:]
	case len(rest) == 18 && rest[4] == '=':
		doe, rest = rest[:4], rest[5:]
	case len(rest) != 13:
		return IDRecord{}, fail(ErrFormat, "Record2", "expected 13 or 17 digits after =")
	}
	return parseRecord(pan, doe, rest)
}

// Record2 returns the form of ParseRecord2 with both sentinels.
func (r IDRecord) Record2() string {
	doe := "="
	if !r.DOE.IsZero() {
		doe = r.DOE.String()
	}
	return ";" + r.PAN.String() + "=" + doe + r.tail() + "?"
}

func (r IDRecord) tail() string {
	return r.TCT.String() + r.EA.String() + r.SGC.String() + r.TI.String() + string([]byte{'0' + byte(r.KRN)})
}

func parseRecord(pan, doe, tail string) (IDRecord, error) {
	p, err := ParsePAN(pan)
	if err != nil {
		return IDRecord{}, err
	}
	d, ok := digits(doe, 4)
	if !ok {
		return IDRecord{}, fail(ErrFormat, "DOE", "expected 4 decimal digits")
	}
	t, ok := digits(tail, 13)
	if !ok {
		return IDRecord{}, fail(ErrFormat, "IDRecord", "expected decimal digits")
	}
	r := IDRecord{
		PAN: p,
		DOE: DOE{uint8(d / 100), uint8(d % 100)},
		TCT: TCT(t / 1e11),
		EA:  EA(t / 1e9 % 100),
		SGC: SGC(t / 1e3 % 1e6),
		TI:  TI(t / 10 % 100),
		KRN: KRN(t % 10),
	}
	if !r.DOE.valid() {
		return IDRecord{}, fail(ErrRange, "DOE", "expected YYMM or 0000")
	}
	if !r.KRN.Valid() {
		return IDRecord{}, fail(ErrRange, "KRN", "expected 1..9")
	}
	return r, nil
}
