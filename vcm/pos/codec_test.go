package pos

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func anyToken(t *rapid.T) Token {
	text, number := rapid.StringN(0, 40, 60), rapid.IntRange(0, 1<<24)
	tok := Token{
		DRN: text.Draw(t, "drn"), PAN: text.Draw(t, "pan"), EA: number.Draw(t, "ea"), TCT: number.Draw(t, "tct"), SGC: number.Draw(t, "sgc"),
		KRN: number.Draw(t, "krn"), TI: number.Draw(t, "ti"), Class: number.Draw(t, "class"), Subclass: number.Draw(t, "subclass"),
		TID: number.Draw(t, "tid"), Amount: rapid.Float64Range(-1e30, 1e30).Draw(t, "amount"), ReservedTID: rapid.Bool().Draw(t, "reserved"),
		Description: text.Draw(t, "description"), STSUnitName: text.Draw(t, "unit"), ScaledAmount: text.Draw(t, "scaled"),
		ScaledUnitName: text.Draw(t, "scaled unit"), Dec: text.Draw(t, "dec"), Hex: text.Draw(t, "hex"), IDSM: text.Draw(t, "id"), VKKCV: text.Draw(t, "kcv"),
	}
	if rapid.Bool().Draw(t, "advised") {
		tok.New = &Advice{
			SGC: number.Draw(t, "to sgc"), KRN: 1, TI: 2, KEN: 255, IDRecord: text.Draw(t, "record"), Record2: text.Draw(t, "record2"),
			Rollover: rapid.Bool().Draw(t, "rollover"), VKKCV: text.Draw(t, "to kcv"),
		}
	}
	return tok
}

// TestCodec: what is stored is what is fetched.
func TestCodec(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var tokens []Token
		for range rapid.IntRange(0, maxTokens).Draw(t, "count") {
			tokens = append(tokens, anyToken(t))
		}
		stored := encodeTokens(nil, tokens)
		back, err := decodeTokens(stored)
		if err != nil || len(back) != len(tokens) || len(tokens) > 0 && !reflect.DeepEqual(back, tokens) {
			t.Fatalf("%+v became %+v, %v", tokens, back, err)
		}
		if cut := rapid.IntRange(0, len(stored)-1).Draw(t, "cut"); len(tokens) > 0 {
			if _, err := decodeTokens(stored[:cut]); err == nil {
				t.Fatalf("%d of %d octets are accepted", cut, len(stored))
			}
		}
	})
}

func FuzzTokens(f *testing.F) {
	f.Add(encodeTokens(nil, []Token{{DRN: "00000000000", Amount: 102, New: &Advice{SGC: 1}}}))
	f.Add([]byte{tokensVersion, 5})
	f.Fuzz(func(t *testing.T, data []byte) {
		tokens, err := decodeTokens(data)
		if err != nil {
			return
		}
		if _, err := decodeTokens(encodeTokens(nil, tokens)); err != nil {
			t.Errorf("%x cannot be stored again: %v", data, err)
		}
	})
}

func FuzzIDRecord(f *testing.F) {
	for _, s := range []string{
		"00000260060135803400000207999907012", ";000002600601358034==0207999907012?", "000002600601358034=0207999907012",
		"000002600601358034=27120207999907012", "000002600601358034=2712=0207999907012", "=", ";?", ";=?",
	} {
		f.Add(s)
	}
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseIDRecord("idRecord", s, now)
		if err != nil {
			return
		}
		if _, err := c.check(now); err != nil {
			t.Errorf("%q is read as %+v, which is refused: %v", s, c, err)
		}
	})
}

// TestIDRecord reads every form of a record.
func TestIDRecord(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	want := MeterConfig{
		DRN: "0260060135803", EA: 7, TCT: 2, SGC: 999907, KRN: 2, TI: 1, KEN: 255, DOE: "0000", AllowKRNUpdate: true, AllowKENUpdate: true,
	}
	for text, doe := range map[string]string{
		"00000260060135803400000207999907012":     "0000",
		"00000260060135803426040207999907012":     "2604",
		"000002600601358034=0207999907012":        "0000",
		"000002600601358034==0207999907012":       "0000",
		";000002600601358034==0207999907012?":     "0000",
		";000002600601358034=0207999907012?":      "0000",
		"000002600601358034=27120207999907012":    "2712",
		";000002600601358034=2712=0207999907012?": "2712",
	} {
		want.DOE = doe
		if got, err := parseIDRecord("idRecord", text, now); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestPattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern string
		want    bool
	}{
		{"*", true}, {"600727*", true}, {"*9", true}, {"600727000000000009", true}, {"??????????????????", true}, {"?????????????????", false},
		{"*0*0*9", true}, {"*1*", false}, {"600728*", false}, {"***", true}, {"6*7*9*", true}, {"*90", false},
	} {
		if got := matches(c.pattern, "600727000000000009"); got != c.want {
			t.Errorf("%q: %v", c.pattern, got)
		}
	}
}
