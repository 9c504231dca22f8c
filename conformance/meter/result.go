package meter

import (
	"fmt"
	"strings"
	"time"
)

// Code is a meter's answer to a token.
type Code string

const (
	// Accepted is a token that took effect.
	Accepted Code = "accepted"
	// SectionHeld is a key-change section that waits for the rest of its set.
	SectionHeld Code = "section-held"

	// CRCError is a token that does not decrypt to its checksum: mistyped, for
	// another meter, or under another key.
	CRCError Code = "crc-error"
	// ManufacturerError is a test token for another manufacturer's meters.
	ManufacturerError Code = "manufacturer-error"
	// FunctionError is a class or subclass that this meter does not implement.
	FunctionError Code = "function-error"
	// DDTKError is a credit token under a default key.
	DDTKError Code = "ddtk-error"
	// KeyExpiredError is a TID beyond the key expiry number.
	KeyExpiredError Code = "key-expired-error"
	// OldError is a TID below every remembered one.
	OldError Code = "old-error"
	// UsedError is a TID that the meter remembers.
	UsedError Code = "used-error"
	// RangeError is a field outside what the standard allows.
	RangeError Code = "range-error"
	// FormatError is a field that must have another value here.
	FormatError Code = "format-error"
	// KeyTypeError is a key change that the key types do not permit.
	KeyTypeError Code = "key-type-error"
	// OverflowError is credit that the register cannot hold.
	OverflowError Code = "overflow-error"
)

// Result is the answer to one token, with what the token carried.
type Result struct {
	Token    string `json:"token"`
	Accepted bool   `json:"accepted"`
	Code     Code   `json:"code"`
	// Reason says why a token was rejected.
	Reason string `json:"reason,omitempty"`

	// Class, SubClass and Name are absent where decryption failed.
	Class    *uint8 `json:"class,omitempty"`
	SubClass *uint8 `json:"subclass,omitempty"`
	Name     string `json:"name,omitempty"`
	// TID is the token identifier; Issued is the minute it stands for, if the
	// base date is known.
	TID    *uint32    `json:"tid,omitempty"`
	Issued *time.Time `json:"issued,omitempty"`
	// Amount is the credit in whole units (0.1 kWh, 0.1 m3, 0.1 min, 0.00001 of
	// the currency), or the value of a management token; Text is the same for people.
	Amount string `json:"amount,omitempty"`
	Text   string `json:"text,omitempty"`
	// Missing lists the subclasses that a held key-change set still needs.
	Missing []int `json:"missing,omitempty"`
	// Display is what a class 1 token shows.
	Display []Line `json:"display,omitempty"`
}

// Line is one item on the meter's display.
type Line struct {
	Test  int    `json:"test"`
	Name  string `json:"name"`
	Value string `json:"value"`
}

// String is the result as one line a person reads on a meter.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", group(r.Token), r.Code)
	if r.Name != "" {
		fmt.Fprintf(&b, ", %s", r.Name)
	}
	if r.Text != "" {
		fmt.Fprintf(&b, ", %s", r.Text)
	}
	if r.TID != nil {
		fmt.Fprintf(&b, ", TID %d", *r.TID)
	}
	if r.Issued != nil {
		fmt.Fprintf(&b, " (%s)", r.Issued.Format("2006-01-02 15:04"))
	}
	if len(r.Missing) != 0 {
		fmt.Fprintf(&b, ", still needs %s", subclasses(r.Missing))
	}
	if r.Reason != "" {
		fmt.Fprintf(&b, ": %s", r.Reason)
	}
	return b.String()
}

func subclasses(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = fmt.Sprint(n)
	}
	if len(words) == 1 {
		return "subclass " + words[0]
	}
	return "subclasses " + strings.Join(words, ", ")
}

// group writes twenty digits as people type them, in fours.
func group(digits string) string {
	var b strings.Builder
	for i := range len(digits) {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteByte(digits[i])
	}
	return b.String()
}

func (r Result) reject(code Code, format string, args ...any) Result {
	r.Accepted, r.Code, r.Reason = false, code, fmt.Sprintf(format, args...)
	return r
}

func (r Result) accept() Result {
	r.Accepted, r.Code = true, Accepted
	return r
}
