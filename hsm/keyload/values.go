package keyload

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Layouts of dates and times in records; always UTC.
const (
	DateTime = "20060102150405"
	Date     = "20060102"
)

// reader takes typed values out of a record and keeps the first problem.
type reader struct {
	rec Record
	err error
}

func (r *reader) fail(tag, format string, args ...any) {
	if r.err == nil {
		r.err = &FieldError{Record: r.rec.Type, Tag: tag, Problem: fmt.Sprintf(format, args...)}
	}
}

func (r *reader) text(tag string) string {
	v := r.rec.Get(tag)
	if v == "" {
		r.fail(tag, "is missing")
	}
	return v
}

func (r *reader) ident(tag string) string {
	v := r.text(tag)
	if v != "" && !IsIdent(v) {
		r.fail(tag, "is not an identifier")
	}
	return v
}

// digits reads a fixed number of decimal digits.
func (r *reader) digits(tag string, n int) string {
	v := r.text(tag)
	if v != "" && (len(v) != n || strings.Trim(v, "0123456789") != "") {
		r.fail(tag, "is not a number of %d digits", n)
	}
	return v
}

// number reads a decimal number without leading zeros.
func (r *reader) number(tag string, low, high int) int {
	v := r.text(tag)
	n, err := strconv.Atoi(v)
	if v != "" && (err != nil || strconv.Itoa(n) != v || n < low || n > high) {
		r.fail(tag, "is not a number from %d to %d", low, high)
	}
	return n
}

// hex reads upper-case hex of n octets; n 0 takes any length.
func (r *reader) hex(tag string, n int) []byte {
	v := r.text(tag)
	b, err := hex.DecodeString(v)
	if v != "" && (err != nil || strings.ToUpper(v) != v || n != 0 && len(b) != n) {
		if n == 0 {
			r.fail(tag, "is not upper-case hex")
		} else {
			r.fail(tag, "is not %d octets in upper-case hex", n)
		}
	}
	return b
}

func (r *reader) time(tag, layout string) time.Time {
	v := r.text(tag)
	t, err := time.Parse(layout, v)
	if v != "" && (err != nil || t.Format(layout) != v) {
		form := "CCYYMMDD"
		if layout == DateTime {
			form = "CCYYMMDDhhmmss"
		}
		r.fail(tag, "is not a time %s", form)
	}
	return t
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }
