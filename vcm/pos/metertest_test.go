package pos_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"

	"github.com/tesserae-hsm/tesserae/vcm/pos"
)

// TestPublishedMeterTests makes and verifies each published meter test token.
func TestPublishedMeterTests(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/meter-test-tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tokens []struct {
			TokenDec, TokenHex string
			Subclass, MfrCode  int
			Control            int64
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Tokens) != 38 {
		t.Fatalf("%d tokens, expected 38", len(file.Tokens))
	}
	r := newRig(t, false)
	for _, want := range file.Tokens {
		got, err := r.MeterTest(pos.MeterTest{Subclass: want.Subclass, Control: want.Control, Manufacturer: want.MfrCode})
		if err != nil || got.Dec != want.TokenDec || got.Hex != want.TokenHex {
			t.Errorf("subclass %d control %X: %s %s, %v, expected %s %s", want.Subclass, want.Control, got.Dec, got.Hex, err, want.TokenDec, want.TokenHex)
		}
		v, err := r.Verify(context.Background(), pos.Verify{Meter: meter(1), TokenDec: want.TokenDec})
		if err != nil || v.Result != pos.VerifyOk || v.Test == nil || *v.Test != got {
			t.Errorf("verify %s: %+v, %v", want.TokenDec, v, err)
		}
	}
	if v, err := r.Verify(context.Background(), pos.Verify{Meter: meter(1), TokenDec: "00000000000134220737"}); err != nil || v.Result != pos.VerifyCRC {
		t.Errorf("a changed digit: %+v, %v", v, err)
	}
}
