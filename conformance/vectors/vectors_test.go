package vectors_test

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/vectors"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

func load(t testing.TB) vectors.File {
	t.Helper()
	p, err := os.ReadFile("sts-tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	f, err := vectors.Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var variants = []sts.Variant{sts.TableDriven, sts.ConstantTime}

func TestAllVectors(t *testing.T) {
	t.Parallel()
	f := load(t)
	if len(f.Vectors) != 658 {
		t.Fatalf("%d vectors, want 658", len(f.Vectors))
	}
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			for _, c := range f.Vectors {
				if err := (vectors.Runner{Variant: v}).Run(c); err != nil {
					t.Errorf("%s: %v", c.ID, err)
				}
			}
		})
	}
}

// samples returns one vector of each kind: class, subclass, algorithm and DKGA.
func samples(t testing.TB) []map[string]any {
	p, err := os.ReadFile("sts-tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Vectors []map[string]any }
	d := json.NewDecoder(strings.NewReader(string(p)))
	d.UseNumber()
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var out []map[string]any
	for _, v := range f.Vectors {
		kind, err := json.Marshal([]any{v["class"], v["subclass"], v["subclasses"], v["ea"], v["dkga"]})
		if err != nil {
			t.Fatal(err)
		}
		// The last of a kind has other values than zero.
		if !seen[string(kind)] && v["amount"] != json.Number("0") && v["watts"] != json.Number("0") && v["currencyUnits"] != "0" {
			seen[string(kind)] = true
			out = append(out, v)
		}
	}
	return out
}

func parse(t testing.TB, v map[string]any) vectors.Case {
	t.Helper()
	p, err := json.Marshal(map[string]any{"format": vectors.Format, "vectors": []any{v}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := vectors.Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	return f.Vectors[0]
}

// change returns a copy of v in which change has altered the copy.
func change(t testing.TB, v map[string]any, edit func(map[string]any)) map[string]any {
	t.Helper()
	p, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	d := json.NewDecoder(strings.NewReader(string(p)))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	edit(out)
	return out
}

// bump changes the last digit of a text or number to another one.
func bump(v any) any {
	switch v := v.(type) {
	case string:
		last := v[len(v)-1]
		if last == '1' {
			return v[:len(v)-1] + "2"
		}
		return v[:len(v)-1] + "1"
	case json.Number:
		return json.Number(bump(v.String()).(string))
	case bool:
		return !v
	case []any:
		v[len(v)-1] = bump(v[len(v)-1])
		return v
	}
	panic("no such value in a vector")
}

// TestBrokenVectors is the positive control of every comparison: a wrong
// intermediate value is found, and named.
func TestBrokenVectors(t *testing.T) {
	t.Parallel()
	steps := map[string]string{
		"decoderKey": "decoderKey", "tid": "tid", "encodedAmount": "encodedAmount", "issuedAmount": "issuedAmount",
		"issuedUnits": "issuedUnits", "block": "block", "blocks": "block ", "tokens": "token",
	}
	found := map[string]bool{}
	for _, v := range samples(t) {
		for field, step := range steps {
			if v[field] == nil {
				continue
			}
			broken := change(t, v, func(m map[string]any) { m[field] = bump(m[field]) })
			if got := failure(t, broken); !strings.HasPrefix(got.Step, step) || got.Expected == "" || got.Expected == got.Got {
				t.Errorf("%v with a wrong %s fails at %+v", v["id"], field, got)
			}
			found[field] = true
			without := change(t, v, func(m map[string]any) { delete(m, field) })
			if field != "tokens" {
				mustPass(t, without)
			}
		}
		// Every digit of the token counts.
		for i := range 20 {
			broken := change(t, v, func(m map[string]any) {
				tokens := m["tokens"].([]any)
				p := []byte(tokens[0].(string))
				p[i] = '0' + (p[i]-'0'+1)%10
				tokens[0] = string(p)
			})
			failure(t, broken)
		}
		if v["new"] == nil {
			continue
		}
		for field, step := range map[string]string{"decoderKey": "new.decoderKey", "rollover": "new.rollover", "krn": "", "ti": "", "sgc": "", "baseDate": ""} {
			broken := change(t, v, func(m map[string]any) {
				k := m["new"].(map[string]any)
				if field == "baseDate" {
					k[field] = map[json.Number]json.Number{"1993": "2014", "2014": "2035", "2035": "2014"}[k[field].(json.Number)]
					return
				}
				k[field] = bump(k[field])
			})
			if got := failure(t, broken); step != "" && got.Step != step {
				t.Errorf("%v with a wrong new %s fails at %+v", v["id"], field, got)
			}
			found["new "+field] = true
		}
	}
	for field := range steps {
		if !found[field] {
			t.Errorf("no vector has %s", field)
		}
	}
	if !found["new rollover"] {
		t.Error("no key-change vector was broken")
	}
}

// TestBrokenInputs: a wrong input gives another decoder key, block or token.
func TestBrokenInputs(t *testing.T) {
	t.Parallel()
	for _, v := range samples(t) {
		for _, field := range []string{"sgc", "ti", "vendingKey", "rnd", "value", "control", "subclass"} {
			if v[field] == nil {
				continue
			}
			// DKGA02 corrects the parity bit, so another bit must change.
			broken := change(t, v, func(m map[string]any) {
				m[field] = bump(m[field])
				if field == "vendingKey" {
					k := m[field].(string)
					m[field] = string(hexDigit(k[0]^1)) + k[1:]
				}
			})
			failure(t, broken)
		}
		for field := range v {
			if slices.Contains([]string{"id", "decoderKey", "tid", "encodedAmount", "issuedAmount", "issuedUnits", "block", "blocks", "time",
				"subclasses", "vendingKey", "staTables", "ken"}, field) {
				continue
			}
			if field == "baseDate" && v["time"] == nil {
				continue
			}
			missing := change(t, v, func(m map[string]any) { delete(m, field) })
			failure(t, missing)
		}
	}
}

func hexDigit(c byte) byte {
	if strings.IndexByte("0123456789ABCDEF", c) < 0 {
		return 'E'
	}
	return c
}

func failure(t *testing.T, v map[string]any) *vectors.Failure {
	t.Helper()
	err := vectors.Runner{}.Run(parse(t, v))
	var f *vectors.Failure
	if !errors.As(err, &f) {
		t.Fatalf("%v: %v, want a failure: %v", v["id"], err, v)
	}
	return f
}

func mustPass(t *testing.T, v map[string]any) {
	t.Helper()
	if err := (vectors.Runner{}).Run(parse(t, v)); err != nil {
		t.Errorf("%v: %v", v["id"], err)
	}
}

// TestLiberties are the forms that a file may choose.
func TestLiberties(t *testing.T) {
	t.Parallel()
	for _, v := range samples(t) {
		// Numbers as text.
		mustPass(t, change(t, v, func(m map[string]any) {
			for k, n := range m {
				if n, ok := n.(json.Number); ok {
					m[k] = n.String()
				}
			}
		}))
		// Lower-case hexadecimal.
		mustPass(t, change(t, v, func(m map[string]any) {
			for _, k := range []string{"decoderKey", "vendingKey", "block", "encodedAmount"} {
				if s, ok := m[k].(string); ok {
					m[k] = strings.ToLower(s)
				}
			}
		}))
		// A decoder key instead of the vending key.
		if v["decoderKey"] != nil {
			mustPass(t, change(t, v, func(m map[string]any) {
				for _, k := range []string{"vendingKey", "dkga", "sgc", "krn"} {
					delete(m, k)
				}
			}))
		}
		// A TID instead of the time.
		if v["tid"] != nil {
			mustPass(t, change(t, v, func(m map[string]any) { delete(m, "time") }))
		}
		// A key-change set in another order.
		if v["subclasses"] != nil {
			mustPass(t, change(t, v, func(m map[string]any) {
				for _, k := range []string{"subclasses", "blocks", "tokens"} {
					slices.Reverse(m[k].([]any))
				}
			}))
		}
	}
}

// TestReservedMinute: at 00:01 an ordinary token takes 00:02, a special one 00:01.
func TestReservedMinute(t *testing.T) {
	t.Parallel()
	f := load(t)
	at := slices.IndexFunc(f.Vectors, func(c vectors.Case) bool { return strings.HasSuffix(c.Time, "T00:01:00Z") })
	if at < 0 {
		t.Fatal("no vector at 00:01")
	}
	c := f.Vectors[at]
	special, err := sts.BaseDate(2035).ReservedTID(mustTime(t, c.Time))
	if err != nil {
		t.Fatal(err)
	}
	n := vectors.Number(sprint(uint32(special)))
	c.TID, c.Block = &n, ""
	var failed *vectors.Failure
	if err := (vectors.Runner{}).Run(c); !errors.As(err, &failed) || failed.Step != "token" {
		t.Errorf("a special TID is taken as given: %v", err)
	}
}
