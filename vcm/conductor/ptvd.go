package conductor

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// maxText is the longest P field.
const maxText = 8192

const dateTime = "20060102150405"

// splitFields splits parameters at their tildes; CodePTVDFields if the last
// field is not ended.
func splitFields(params string) ([]string, tsm.Code) {
	if params == "" {
		return nil, tsm.CodeOK
	}
	if !strings.HasSuffix(params, "~") {
		return nil, tsm.CodePTVDFields
	}
	return strings.Split(params[:len(params)-1], "~"), tsm.CodeOK
}

// fields are decoded parameters, by position.
type fields struct {
	numbers []uint32
	texts   []string
	octets  [][]byte
	count   int
}

// decodeFields decodes parameters as the types want lists, such as "NPNN". An
// alternative that ends in more fields is tried by the number of fields.
func decodeFields(params string, wants ...string) (fields, tsm.Code) {
	raw, code := splitFields(params)
	if code != tsm.CodeOK {
		return fields{}, code
	}
	want, found := "", false
	for _, w := range wants {
		if len(w) == len(raw) {
			want, found = w, true
		}
	}
	if !found {
		return fields{}, tsm.CodePTVDFields
	}
	for i, f := range raw {
		if f == "" || f[0] != want[i] {
			return fields{}, tsm.CodePTVDFieldType
		}
	}
	n := len(raw)
	out := fields{numbers: make([]uint32, n), texts: make([]string, n), octets: make([][]byte, n), count: n}
	for i, f := range raw {
		if !out.decode(i, f[0], f[1:]) {
			return fields{}, tsm.CodePTVDEncoding
		}
	}
	for i := range raw {
		if len(out.texts[i]) > maxText {
			return fields{}, tsm.CodePTVDRange
		}
	}
	return out, tsm.CodeOK
}

// decode reports whether value is valid for its type.
func (f *fields) decode(i int, kind byte, value string) bool {
	switch kind {
	case 'N':
		n, err := strconv.ParseUint(value, 10, 32)
		f.numbers[i] = uint32(n)
		return err == nil && strconv.FormatUint(n, 10) == value
	case 'P':
		f.texts[i] = value
		return printable(value)
	case 'H':
		b, err := hex.DecodeString(value)
		f.octets[i] = b
		return err == nil && value != "" && strings.ToUpper(value) == value
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

// integer reads an H field as a number; it has between low and high octets.
func (f *fields) integer(i, low, high int) (uint32, tsm.Code) {
	b := f.octets[i]
	if len(b) < low || len(b) > high {
		return 0, tsm.CodePTVDRange
	}
	var v uint32
	for _, c := range b {
		v = v<<8 | uint32(c)
	}
	return v, tsm.CodeOK
}

// payload builds a response's fields.
type payload struct{ strings.Builder }

func (p *payload) number(n uint64) *payload { return p.put('N', strconv.FormatUint(n, 10)) }
func (p *payload) hex(b []byte) *payload {
	return p.put('H', strings.ToUpper(hex.EncodeToString(b)))
}
func (p *payload) time(t time.Time) *payload { return p.put('D', t.UTC().Format(dateTime)) }

// text writes a P field; characters that cannot travel become '?'.
func (p *payload) text(s string) *payload {
	return p.put('P', strings.Map(func(c rune) rune {
		if c < ' ' || c > '}' {
			return '?'
		}
		return c
	}, s))
}

func (p *payload) put(kind byte, value string) *payload {
	p.WriteByte(kind)
	p.WriteString(value)
	p.WriteByte('~')
	return p
}
