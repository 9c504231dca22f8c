package keyload

import (
	"errors"
	"fmt"
	"strings"
)

// ErrFormat is the class of every error about a record that is not well-formed:
// grammar, CRC, unknown, repeated or misplaced fields. The module answers it
// with DF_FORMAT_ERROR.
var ErrFormat = errors.New("malformed record")

// FieldError is a field that is missing from a well-formed record, or whose
// value is not valid.
type FieldError struct {
	Record, Tag, Problem string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s: field %s %s", e.Record, e.Tag, e.Problem)
}

// TypeError is a well-formed record of another type than the one expected.
type TypeError struct{ Want, Got string }

func (e *TypeError) Error() string {
	return fmt.Sprintf("this is a %s record; a %s record is needed", e.Got, e.Want)
}

// maxRecord bounds a record's text; the longest real one has about 500 characters.
const maxRecord = 4096

// Field is one tagged value of a record.
type Field struct{ Tag, Value string }

// Record is a dfconcat record: a type with its version and tagged fields,
// each ended by a semicolon, and a CRC over all of that.
type Record struct {
	Type   string
	Fields []Field
}

// NewRecord returns a record of the given type. Pairs alternate tag and value;
// a pair with an empty value is left out.
func NewRecord(rectype string, pairs ...string) Record {
	r := Record{Type: rectype}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			r.Fields = append(r.Fields, Field{pairs[i], pairs[i+1]})
		}
	}
	return r
}

// Body returns the record's text up to and including the last semicolon before
// its CRC: what the CRC and, without the field itself, MACs and signatures cover.
func (r Record) Body() string {
	var b strings.Builder
	b.WriteString(r.Type)
	b.WriteByte(';')
	for _, f := range r.Fields {
		b.WriteString(f.Tag)
		b.WriteString(f.Value)
		b.WriteByte(';')
	}
	return b.String()
}

// String returns the record with its CRC.
func (r Record) String() string {
	body := r.Body()
	return fmt.Sprintf("%sCRC%04X", body, CRC16([]byte(body)))
}

// Get returns the value of a tag, "" if the record does not have it.
func (r Record) Get(tag string) string {
	for _, f := range r.Fields {
		if f.Tag == tag {
			return f.Value
		}
	}
	return ""
}

// Before returns the record without the field tag and everything after it:
// what a MAC or a signature in that field covers.
func (r Record) Before(tag string) Record {
	for i, f := range r.Fields {
		if f.Tag == tag {
			return Record{Type: r.Type, Fields: r.Fields[:i:i]}
		}
	}
	return r
}

// ParseRecord reads a record and checks its CRC. It accepts exactly what
// String prints; every error is an ErrFormat.
func ParseRecord(text string) (Record, error) {
	if len(text) > maxRecord {
		return Record{}, fmt.Errorf("%w: longer than %d characters", ErrFormat, maxRecord)
	}
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '~' {
			return Record{}, fmt.Errorf("%w: character %#02x at position %d is not allowed", ErrFormat, c, i+1)
		}
	}
	cut := strings.LastIndexByte(text, ';') + 1
	body, tail := text[:cut], text[cut:]
	if cut == 0 || !strings.HasPrefix(tail, "CRC") || !isHex(tail[3:], 4) {
		return Record{}, fmt.Errorf("%w: it does not end with a CRC", ErrFormat)
	}
	if want := fmt.Sprintf("%04X", CRC16([]byte(body))); tail[3:] != want {
		return Record{}, fmt.Errorf("%w: wrong CRC %s", ErrFormat, tail[3:])
	}
	parts := strings.Split(body[:len(body)-1], ";")
	r := Record{Type: parts[0]}
	if !IsIdent(r.Type) {
		return Record{}, fmt.Errorf("%w: %q is not a record type", ErrFormat, r.Type)
	}
	for _, p := range parts[1:] {
		if len(p) < 4 || !isTag(p[:3]) {
			return Record{}, fmt.Errorf("%w: %q is not a tag with a value", ErrFormat, p)
		}
		if r.Get(p[:3]) != "" {
			return Record{}, fmt.Errorf("%w: field %s is repeated", ErrFormat, p[:3])
		}
		r.Fields = append(r.Fields, Field{p[:3], p[3:]})
	}
	return r, nil
}

// ofType checks that r is of the given type and that its fields are among tags,
// in that order. Which of them must be present is for the record to say.
func (r Record) ofType(rectype string, tags ...string) error {
	if r.Type != rectype {
		return &TypeError{Want: rectype, Got: r.Type}
	}
	next := 0
	for _, f := range r.Fields {
		i := next
		for i < len(tags) && tags[i] != f.Tag {
			i++
		}
		if i == len(tags) {
			return fmt.Errorf("%w: field %s is unknown or out of order in %s", ErrFormat, f.Tag, rectype)
		}
		next = i + 1
	}
	return nil
}

// IsIdent reports whether s is an IDENT: 1 to 40 characters, the first
// alphanumeric, the others alphanumeric or one of _ - . ,
func IsIdent(s string) bool {
	if s == "" || len(s) > 40 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && (i == 0 || !strings.ContainsRune("_-.,", rune(c))) {
			return false
		}
	}
	return true
}

func isTag(s string) bool {
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			return false
		}
	}
	return true
}

// isHex reports whether s is n upper-case hex digits.
func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// CRC16 is CRC-16/ARC, the check of records and of the API's lines: polynomial
// 0x8005 reflected, initial value 0, no final xor.
func CRC16(data []byte) uint16 {
	var crc uint16
	for _, b := range data {
		crc ^= uint16(b)
		crc = crc>>4 ^ crcNibble[crc&0xF]
		crc = crc>>4 ^ crcNibble[crc&0xF]
	}
	return crc
}

// crcNibble is the CRC's change by four bits.
var crcNibble = [16]uint16{
	0x0000, 0xCC01, 0xD801, 0x1400, 0xF001, 0x3C00, 0x2800, 0xE401,
	0xA001, 0x6C00, 0x7800, 0xB401, 0x5000, 0x9C01, 0x8801, 0x4400,
}
