package sts

import (
	"strconv"
	"time"
)

// BaseDate is the year whose 1 January, 00:00 UTC, is minute zero of the token
// identifiers under a vending key (IEC 62055-41 6.1, BDT).
type BaseDate uint16

// The base dates that the standard defines.
const (
	BaseDate1993 BaseDate = 1993 // code "93", last TID 2024-11-24 20:15 UTC
	BaseDate2014 BaseDate = 2014 // code "14", last TID 2045-11-24 20:15 UTC
	BaseDate2035 BaseDate = 2035 // code "35", last TID 2066-11-24 20:15 UTC
)

const (
	unix1993 = 725846400 // 1993-01-01T00:00:00Z
	// minutes from the 1993 base date to the other two
	offset2014 = 11044800
	offset2035 = 22089600
)

// ParseBaseDate reads a year of four digits, "1993", "2014" or "2035", or the
// two-digit code of key derivation, "93", "14" or "35".
func ParseBaseDate(s string) (BaseDate, error) {
	switch s {
	case "1993", "93":
		return BaseDate1993, nil
	case "2014", "14":
		return BaseDate2014, nil
	case "2035", "35":
		return BaseDate2035, nil
	}
	return 0, fail(ErrFormat, "BDT", "expected 1993, 2014 or 2035")
}

// Valid reports whether b is one of the three base dates.
func (b BaseDate) Valid() bool {
	return b == BaseDate1993 || b == BaseDate2014 || b == BaseDate2035
}

// String returns the year, such as "2014".
func (b BaseDate) String() string { return strconv.Itoa(int(b)) }

// Code returns the two digits that key derivation uses: "93", "14" or "35", and
// "" for any other value.
func (b BaseDate) Code() string {
	switch b {
	case BaseDate1993:
		return "93"
	case BaseDate2014:
		return "14"
	case BaseDate2035:
		return "35"
	}
	return ""
}

// minutes returns the minutes from the 1993 base date to b.
func (b BaseDate) minutes() int64 {
	switch b {
	case BaseDate2014:
		return offset2014
	case BaseDate2035:
		return offset2035
	}
	return 0
}

// TID returns the whole minutes from the base date to t; seconds are dropped.
// It is ErrBeforeBaseDate or ErrExpired when they do not fit 24 unsigned bits.
// The reserved minute is not treated: see IssueTID and ReservedTID.
func (b BaseDate) TID(t time.Time) (TID, error) {
	if !b.Valid() {
		return 0, fail(ErrRange, "BDT", "expected 1993, 2014 or 2035")
	}
	seconds := t.Unix() - unix1993 - 60*b.minutes()
	if seconds < 0 {
		return 0, fail(ErrBeforeBaseDate, "TID", "the time lies before the base date")
	}
	if seconds/60 > int64(MaxTID) {
		return 0, fail(ErrExpired, "TID", "the time lies beyond the 24 bits of the base date")
	}
	return TID(seconds / 60), nil
}

// IssueTID returns the TID of an ordinary token issued at t: that of TID, or of
// the following minute at 00:01, which is reserved.
func (b BaseDate) IssueTID(t time.Time) (TID, error) {
	id, err := b.TID(t)
	if err != nil {
		return 0, err
	}
	return id.SkipReserved(), nil
}

// ReservedTID returns the TID of a special token issued on the day of t: the
// minute 00:01 UTC of that day.
func (b BaseDate) ReservedTID(t time.Time) (TID, error) {
	id, err := b.TID(t)
	if err != nil {
		return 0, err
	}
	return id - id%minutesOfDay + reservedMinute, nil
}

// Time returns the minute that id names, in UTC.
func (b BaseDate) Time(id TID) time.Time {
	return time.Unix(unix1993+60*(b.minutes()+int64(id)), 0).UTC()
}

// Minute1993 returns the minute that id names, counted from the 1993 base date.
// Vending systems remember issued TIDs in this form, so that a base date change
// cannot confuse them.
func (b BaseDate) Minute1993(id TID) int64 { return b.minutes() + int64(id) }

// TIDOfMinute1993 turns minutes since the 1993 base date into a TID under b. It
// is ErrBeforeBaseDate or ErrExpired when the TID does not fit 24 bits.
func (b BaseDate) TIDOfMinute1993(minute int64) (TID, error) {
	if minute < 0 {
		return 0, fail(ErrBeforeBaseDate, "TID", "the minute lies before 1993")
	}
	if minute > offset2035+int64(MaxTID) {
		return 0, fail(ErrExpired, "TID", "the minute lies beyond the last base date")
	}
	return b.TID(time.Unix(unix1993+60*minute, 0))
}

// Rollover reports the RO bit of a key-change set: set exactly when the new
// key's base date is later than the old key's.
func Rollover(from, to BaseDate) bool { return to > from }

// TID is the token identifier, 24 bits: minutes from the base date of the
// vending key to the time of issue (IEC 62055-41 6.3).
type TID uint32

// MaxTID is the largest token identifier.
const MaxTID TID = 0xFFFFFF

const (
	minutesOfDay   = 1440
	reservedMinute = 1
)

// Valid reports whether t fits 24 bits.
func (t TID) Valid() bool { return t <= MaxTID }

// Reserved reports whether t names minute 00:01 of a day, which is kept for
// special tokens.
func (t TID) Reserved() bool { return t%minutesOfDay == reservedMinute }

// SkipReserved returns t, or t+1 if t is a reserved minute.
func (t TID) SkipReserved() TID {
	if t.Reserved() {
		return t + 1
	}
	return t
}

// Next returns the TID after t that an ordinary token may take: t+1, or t+2 if
// t+1 is a reserved minute. The caller checks the result against the KEN.
func (t TID) Next() TID { return (t + 1).SkipReserved() }
