package auditlog

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// MaxLine bounds the canonical text of one entry in bytes.
const MaxLine = 16 << 10

const timeLayout = "2006-01-02T15:04:05.000000Z"

// Entry is one event. Times are kept to the microsecond.
type Entry struct {
	Time    time.Time
	Kind    string            // what happened, dotted: "vend.credit"
	Actor   string            // who did it
	Subject string            // to what
	Detail  map[string]string // the rest; never a secret
	// Pairs are names and values besides those of Detail, where a map would cost
	// too much. What is read back is all in Detail.
	Pairs [][2]string
}

// Record is an entry with its place in the log.
type Record struct {
	Seq uint64
	Entry
}

// Marshal returns the record's only text form, one line without its end:
//
//	seq time kind actor subject name=value name=value
//
// Names are sorted. Bytes that are not graphic ASCII, and % and =, are written
// as %XX; an empty string is "-", a lone "-" is "%2D".
func (r Record) Marshal() ([]byte, error) { return r.append(make([]byte, 0, 320)) }

func (r Record) append(p []byte) ([]byte, error) {
	if r.Kind == "" || r.Time.Year() < 1 || r.Time.Year() > 9999 {
		return nil, errkind.Errorf(errkind.Invalid, "a log entry needs a kind and a time between the years 1 and 9999")
	}
	start := len(p)
	p = strconv.AppendUint(p, r.Seq, 10)
	p = append(p, ' ')
	p = appendTime(p, r.Time.UTC())
	for _, s := range []string{r.Kind, r.Actor, r.Subject} {
		p = appendWord(append(p, ' '), s)
	}
	var few [16][2]string
	pairs := append(few[:0], r.Pairs...)
	for name, value := range r.Detail {
		pairs = append(pairs, [2]string{name, value})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	for i, pair := range pairs {
		if i > 0 && pair[0] == pairs[i-1][0] {
			return nil, errkind.Errorf(errkind.Invalid, "log entry %s has %s twice", r.Kind, pair[0])
		}
		p = appendWord(append(p, ' '), pair[0])
		p = appendWord(append(p, '='), pair[1])
	}
	if n := len(p) - start; n > MaxLine {
		return nil, errkind.Errorf(errkind.Invalid, "log entry %s has %d bytes, at most %d are possible", r.Kind, n, MaxLine)
	}
	return p, nil
}

// ParseRecord reads a line that Marshal made and refuses every other.
func ParseRecord(line []byte) (Record, error) {
	bad := func(what string) (Record, error) {
		return Record{}, errkind.Errorf(errkind.Invalid, "malformed log entry: %s", what)
	}
	if len(line) > MaxLine {
		return bad("too long")
	}
	words := strings.Split(string(line), " ")
	if len(words) < 5 {
		return bad("fields are missing")
	}
	var r Record
	var err error
	if r.Seq, err = strconv.ParseUint(words[0], 10, 64); err != nil {
		return bad("sequence number")
	}
	if r.Time, err = time.Parse(timeLayout, words[1]); err != nil {
		return bad("time")
	}
	for i, s := range []*string{&r.Kind, &r.Actor, &r.Subject} {
		var ok bool
		if *s, ok = parseWord(words[2+i]); !ok {
			return bad("word " + strconv.Itoa(3+i))
		}
	}
	for _, w := range words[5:] {
		n, v, found := strings.Cut(w, "=")
		name, ok1 := parseWord(n)
		value, ok2 := parseWord(v)
		if !found || !ok1 || !ok2 {
			return bad("detail")
		}
		if r.Detail == nil {
			r.Detail = map[string]string{}
		}
		r.Detail[name] = value
	}
	if again, err := r.Marshal(); err != nil || !bytes.Equal(again, line) {
		return bad("not in canonical form")
	}
	return r, nil
}

// appendTime is AppendFormat of timeLayout; it is cheaper, and every vend pays for it.
func appendTime(p []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	for _, f := range [...]struct {
		value, width int
		end          byte
	}{{year, 4, '-'}, {int(month), 2, '-'}, {day, 2, 'T'}, {hour, 2, ':'}, {minute, 2, ':'}, {second, 2, '.'}, {t.Nanosecond() / 1000, 6, 'Z'}} {
		at := len(p)
		p = append(p, "000000"[:f.width]...)
		for i := len(p) - 1; i >= at; i-- {
			p[i] = '0' + byte(f.value%10)
			f.value /= 10
		}
		p = append(p, f.end)
	}
	return p
}

const hexDigits = "0123456789ABCDEF"

func appendWord(p []byte, s string) []byte {
	switch s {
	case "":
		return append(p, '-')
	case "-":
		return append(p, "%2D"...)
	}
	plain := 0 // up to here it is in p; most words are so to their end
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '=' {
			p = append(append(p, s[plain:i]...), '%', hexDigits[c>>4], hexDigits[c&15])
			plain = i + 1
		}
	}
	return append(p, s[plain:]...)
}

// parseWord undoes appendWord; what appendWord would not write is found by the
// caller's comparison.
func parseWord(w string) (string, bool) {
	if w == "" {
		return "", false
	}
	if w == "-" {
		return "", true
	}
	out := make([]byte, 0, len(w))
	for i := 0; i < len(w); i++ {
		if w[i] != '%' {
			out = append(out, w[i])
			continue
		}
		if i+2 >= len(w) {
			return "", false
		}
		hi, lo := strings.IndexByte(hexDigits, w[i+1]), strings.IndexByte(hexDigits, w[i+2])
		if hi < 0 || lo < 0 {
			return "", false
		}
		out = append(out, byte(hi<<4|lo))
		i += 2
	}
	return string(out), true
}
