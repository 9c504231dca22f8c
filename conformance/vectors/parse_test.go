package vectors_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/vectors"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

func sprint(v any) string { return fmt.Sprint(v) }

func mustTime(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ file, text string }{
		"empty":         {"", "not JSON"},
		"truncated":     {`{"format":"sts-vectors/1"`, "not JSON"},
		"no format":     {`{"vectors":[]}`, `format ""`},
		"other format":  {`{"format":"sts-vectors/2","vectors":[]}`, `"sts-vectors/2" is not`},
		"no vectors":    {`{"format":"sts-vectors/1"}`, `"vectors" is missing`},
		"unknown field": {`{"format":"sts-vectors/1","vectors":[{"id":"a","colour":1}]}`, `unknown field "colour"`},
		"unknown in new": {`{"format":"sts-vectors/1","vectors":[{"id":"a","new":{"colour":1}}]}`,
			`unknown field "colour"`},
		"no id":      {`{"format":"sts-vectors/1","vectors":[{"class":1}]}`, "no id"},
		"same id":    {`{"format":"sts-vectors/1","vectors":[{"id":"a"},{"id":"a"}]}`, `two vectors`},
		"twice":      {`{"format":"sts-vectors/1","vectors":[{"id":"a","tid":1,"tid":2}]}`, "twice"},
		"fraction":   {`{"format":"sts-vectors/1","vectors":[{"id":"a","tid":1.5}]}`, "decimal integer"},
		"exponent":   {`{"format":"sts-vectors/1","vectors":[{"id":"a","tid":1e3}]}`, "decimal integer"},
		"empty text": {`{"format":"sts-vectors/1","vectors":[{"id":"a","tid":""}]}`, "decimal integer"},
		"trailing":   {`{"format":"sts-vectors/1","vectors":[]}{}`, "not JSON"},
	} {
		if _, err := vectors.Parse([]byte(test.file)); err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v, want %q", name, err, test.text)
		}
	}
	// Any order of fields, an absent about, an empty list.
	if _, err := vectors.Parse([]byte(`{"vectors":[],"format":"sts-vectors/1"}`)); err != nil {
		t.Error(err)
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	f := load(t)
	for _, c := range f.Vectors {
		if c.STATables == "" {
			continue
		}
		c.STATables = "other"
		if err := (vectors.Runner{}).Run(c); err == nil || !strings.Contains(err.Error(), "--sta-tables") {
			t.Errorf("missing tables: %v", err)
		}
		if err := (vectors.Runner{Tables: sts.IECSample()}).Run(c); err != nil {
			t.Errorf("tables under another name: %v", err)
		}
		return
	}
	t.Error("no EA07 vector")
}

// FuzzParse: no file makes the parser or the runner fail in another way than by
// an error.
func FuzzParse(f *testing.F) {
	p, err := os.ReadFile("sts-tokens.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p[:1])
	f.Add([]byte(`{"format":"sts-vectors/1","vectors":[{"id":"a","class":1,"subclass":0,"control":0,"manufacturerCode":0,"block":"0000000000000BC0","tokens":["00000000000134220736"]}]}`))
	f.Add([]byte(`{"format":"sts-vectors/1","vectors":[{"id":"a","class":2,"subclasses":[3,4,8,9],"ea":11,"kt":2,"decoderKey":"00112233445566778899AABBCCDDEEFF","new":{"kt":2,"sgc":"1","krn":1,"ti":1,"ken":1,"decoderKey":"00112233445566778899AABBCCDDEEFF"},"tokens":["58195893855296226263","35511628633639524447","67642161245645749781","67060107531088922717"]}]}`))
	f.Add([]byte(`{"format":"sts-vectors/1","vectors":[{"id":"a","class":0,"subclass":4,"ea":7,"kt":1,"decoderKey":"0011223344556677","tid":1,"currencyUnits":"-99999999999999999999999999999999999","tokens":["58195893855296226263"]}]}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		file, err := vectors.Parse(p)
		if err != nil {
			return
		}
		for _, c := range file.Vectors {
			if err := (vectors.Runner{}).Run(c); err != nil && err.Error() == "" {
				t.Fatal("a failure without text")
			}
		}
	})
}
