package meter_test

import (
	"encoding/hex"
	"os"
	"strconv"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/conformance/vectors"
)

// TestVectors configures a meter from each vector with nothing but its decoder
// key and enters the vector's tokens: each must take effect exactly once.
func TestVectors(t *testing.T) {
	t.Parallel()
	p, err := os.ReadFile("../vectors/sts-tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	file, err := vectors.Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Vectors {
		if string(*c.Class) != "1" {
			vectorMeter(t, c)
		}
	}
	if len(file.Vectors) != 658 {
		t.Errorf("%d vectors", len(file.Vectors))
	}
}

func vectorMeter(t *testing.T, c vectors.Case) {
	t.Helper()
	key, err := hex.DecodeString(c.DecoderKey)
	if err != nil {
		t.Fatal(err)
	}
	m, err := meter.New(meter.Config{
		DRN: c.PAN, EA: number(t, c.EA), TCT: 2, SGC: uint32(number(t, c.SGC)), KRN: number(t, c.KRN), TI: number(t, c.TI),
		KT: number(t, c.KT), KEN: number(t, c.KEN), BaseDate: number(t, c.BaseDate), DecoderKey: key,
	})
	if err != nil {
		t.Fatalf("%s: %v", c.ID, err)
	}
	var last meter.Result
	for i, token := range c.Tokens {
		if last, err = m.Enter(token, noon); err != nil || !last.Accepted {
			t.Fatalf("%s token %d: %s %v", c.ID, i+1, last, err)
		}
	}
	s := m.State()
	if c.New != nil {
		if s.Key != c.New.DecoderKey || s.KRN != number(t, c.New.KRN) || s.TI != number(t, c.New.TI) || s.KEN != number(t, c.New.KEN) {
			t.Errorf("%s: after the key change %+v", c.ID, s)
		}
		return
	}
	if again, err := m.Enter(c.Tokens[0], noon); err != nil || again.Code != meter.UsedError {
		t.Errorf("%s entered twice: %s %v", c.ID, again, err)
	}
	if int(*last.TID) != number(t, c.TID) {
		t.Errorf("%s: TID %d", c.ID, *last.TID)
	}
	want := ""
	switch {
	case c.IssuedAmount != nil:
		want = string(*c.IssuedAmount)
	case c.IssuedUnits != nil:
		want = string(*c.IssuedUnits)
	case c.Value != nil:
		want = string(*c.Value)
	}
	if want != "" && last.Amount != want && last.Name != "clear tamper condition" {
		t.Errorf("%s: %s, want %s", c.ID, last, want)
	}
}

func number(t *testing.T, n *vectors.Number) int {
	t.Helper()
	if n == nil {
		t.Fatal("a number is missing")
	}
	v, err := strconv.Atoi(string(*n))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
