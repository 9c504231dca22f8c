package conductor

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// maxText is the longest P field.
const maxText = 8192

const dateTime = "20060102150405"

// maxFields is how many fields a command has at most.
const maxFields = 8

// fields are decoded parameters, by position.
type fields struct {
	count   int
	numbers [maxFields]uint32
	texts   [maxFields]string // what follows the type letter
}

// decode takes parameters as one of the types that wants lists, such as "NPNN".
// An alternative that ends in more fields is tried by the number of fields.
func (f *fields) decode(params string, wants ...string) tsm.Code {
	*f = fields{count: strings.Count(params, "~")}
	if params != "" && params[len(params)-1] != '~' {
		return tsm.CodePTVDFields
	}
	at := slices.IndexFunc(wants, func(w string) bool { return len(w) == f.count })
	if at < 0 || f.count > maxFields {
		return tsm.CodePTVDFields
	}
	want := wants[at]
	for i := range f.count {
		var field string
		field, params, _ = strings.Cut(params, "~")
		if field == "" || field[0] != want[i] {
			return tsm.CodePTVDFieldType
		}
		f.texts[i] = field[1:]
	}
	for i := range f.count {
		if !f.valid(i, want[i]) {
			return tsm.CodePTVDEncoding
		}
	}
	for i := range f.count {
		if want[i] == 'P' && len(f.texts[i]) > maxText {
			return tsm.CodePTVDRange
		}
	}
	return tsm.CodeOK
}

// valid reports whether field i is valid for its type, and decodes a number.
func (f *fields) valid(i int, kind byte) bool {
	value := f.texts[i]
	switch kind {
	case 'N':
		n, err := strconv.ParseUint(value, 10, 32)
		f.numbers[i] = uint32(n)
		return err == nil && digits(value) && (value[0] != '0' || len(value) == 1)
	case 'P':
		return printable(value)
	case 'H':
		return value != "" && len(value)%2 == 0 && strings.Trim(value, "0123456789ABCDEF") == ""
	case 'D':
		t, err := time.Parse(dateTime, value)
		return err == nil && t.Format(dateTime) == value
	}
	return false
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// octets returns an H field's.
func (f *fields) octets(i int) []byte {
	b, err := hex.DecodeString(f.texts[i])
	if err != nil { // decode has seen that it is hex
		panic("H field: " + err.Error())
	}
	return b
}

// integer reads an H field as a number; it has between low and high octets, four
// at most.
func (f *fields) integer(i, low, high int) (uint32, tsm.Code) {
	if n := len(f.texts[i]) / 2; n < low || n > high {
		return 0, tsm.CodePTVDRange
	}
	v, err := strconv.ParseUint(f.texts[i], 16, 32)
	if err != nil {
		return 0, tsm.CodePTVDRange
	}
	return uint32(v), tsm.CodeOK
}

// payload builds a response's fields.
type payload []byte

func (p *payload) reset() { *p = (*p)[:0] }

func (p *payload) number(n uint64) *payload {
	*p = append(strconv.AppendUint(append(*p, 'N'), n, 10), '~')
	return p
}

func (p *payload) hex(b []byte) *payload {
	const digits = "0123456789ABCDEF"
	*p = append(*p, 'H')
	for _, c := range b {
		*p = append(*p, digits[c>>4], digits[c&15])
	}
	*p = append(*p, '~')
	return p
}

func (p *payload) time(t time.Time) *payload {
	*p = append(t.UTC().AppendFormat(append(*p, 'D'), dateTime), '~')
	return p
}

// text writes a P field; characters that cannot travel become '?'.
func (p *payload) text(s string) *payload {
	*p = append(*p, 'P')
	for _, c := range s {
		if c < ' ' || c > '}' {
			c = '?'
		}
		*p = append(*p, byte(c))
	}
	*p = append(*p, '~')
	return p
}
