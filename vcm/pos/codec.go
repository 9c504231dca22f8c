package pos

import (
	"encoding/binary"
	"math"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Tokens are stored in a compact form of their own, because every vend writes
// one: a version, a count, and for each token its fields in the order of
// tokenFields, numbers as varints, texts with their length before them.
const tokensVersion = 1

// maxTokens is the most one call can issue: four key-change tokens and one more.
const maxTokens = 5

func encodeTokens(dst []byte, tokens []Token) []byte {
	dst = append(dst, tokensVersion, byte(len(tokens)))
	for i := range tokens {
		e := tokenWriter{dst}
		tokenFields(&e, &tokens[i])
		dst = e.buf
	}
	return dst
}

func decodeTokens(src []byte) ([]Token, error) {
	if len(src) < 2 || src[0] != tokensVersion || src[1] > maxTokens {
		return nil, errkind.Errorf(errkind.Integrity, "stored tokens: malformed record")
	}
	out := make([]Token, src[1])
	r := tokenReader{buf: src[2:]}
	for i := range out {
		tokenFields(&r, &out[i])
	}
	if r.failed || len(r.buf) != 0 {
		return nil, errkind.Errorf(errkind.Integrity, "stored tokens: malformed record")
	}
	return out, nil
}

// fieldCoder writes fields or reads them.
type fieldCoder interface {
	number(*int)
	float(*float64)
	flag(*bool)
	text(*string)
}

// tokenFields visits every field of a token, for both directions.
func tokenFields(c fieldCoder, t *Token) {
	for _, s := range []*string{&t.DRN, &t.PAN} {
		c.text(s)
	}
	for _, n := range []*int{&t.EA, &t.TCT, &t.SGC, &t.KRN, &t.TI, &t.Class, &t.Subclass, &t.TID} {
		c.number(n)
	}
	c.float(&t.Amount)
	c.flag(&t.ReservedTID)
	advised := t.New != nil
	c.flag(&advised)
	if advised {
		if t.New == nil {
			t.New = new(Advice)
		}
		a := t.New
		for _, n := range []*int{&a.SGC, &a.KRN, &a.TI, &a.KEN} {
			c.number(n)
		}
		c.flag(&a.Rollover)
		for _, s := range []*string{&a.IDRecord, &a.Record2, &a.VKKCV} {
			c.text(s)
		}
	}
	for _, s := range []*string{&t.Description, &t.STSUnitName, &t.ScaledAmount, &t.ScaledUnitName, &t.Dec, &t.Hex, &t.IDSM, &t.VKKCV} {
		c.text(s)
	}
}

type tokenWriter struct{ buf []byte }

func (w *tokenWriter) number(n *int) { w.buf = binary.AppendUvarint(w.buf, uint64(*n)) }
func (w *tokenWriter) float(f *float64) {
	w.buf = binary.BigEndian.AppendUint64(w.buf, math.Float64bits(*f))
}
func (w *tokenWriter) flag(b *bool) {
	if *b {
		w.buf = append(w.buf, 1)
	} else {
		w.buf = append(w.buf, 0)
	}
}
func (w *tokenWriter) text(s *string) {
	w.buf = binary.AppendUvarint(w.buf, uint64(len(*s)))
	w.buf = append(w.buf, *s...)
}

type tokenReader struct {
	buf    []byte
	failed bool
}

func (r *tokenReader) take(n int) []byte {
	if r.failed || n < 0 || n > len(r.buf) {
		r.failed = true
		return nil
	}
	out := r.buf[:n]
	r.buf = r.buf[n:]
	return out
}

func (r *tokenReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.buf)
	if n <= 0 || v > math.MaxInt32 {
		r.failed = true
		return 0
	}
	r.take(n)
	return v
}

func (r *tokenReader) number(n *int) { *n = int(r.uvarint()) }
func (r *tokenReader) float(f *float64) {
	if b := r.take(8); b != nil {
		*f = math.Float64frombits(binary.BigEndian.Uint64(b))
	}
}
func (r *tokenReader) flag(b *bool) {
	v := r.take(1)
	if v == nil || v[0] > 1 {
		r.failed = true
		return
	}
	*b = v[0] == 1
}
func (r *tokenReader) text(s *string) { *s = string(r.take(int(r.uvarint()))) }
