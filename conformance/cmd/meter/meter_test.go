package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tesserae-hsm/tesserae/conformance/scripttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"meter": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, scripttest.Params("testdata/script"))
}

func TestSplit(t *testing.T) {
	t.Parallel()
	const a, b = "12345678901234567890", "09876543210987654321"
	for name, test := range map[string]struct {
		words []string
		want  []string
	}{
		"one":         {[]string{a}, []string{a}},
		"two":         {[]string{a, b}, []string{a, b}},
		"fours":       {[]string{"1234", "5678", "9012", "3456", "7890"}, []string{a}},
		"mixed":       {[]string{"1234-5678", "9012 3456 7890", b}, []string{a, b}},
		"one word":    {[]string{a + b}, []string{a, b}},
		"none":        {nil, nil},
		"nineteen":    {[]string{a[1:]}, nil},
		"shifted":     {[]string{a[1:], b + "1"}, nil},
		"too long":    {[]string{a + "1"}, nil},
		"rest":        {[]string{a, "1234"}, nil},
		"a letter":    {[]string{"1234567890123456789x"}, nil},
		"option last": {[]string{a, "--json"}, nil},
	} {
		got, err := split(test.words)
		if (err == nil) != (test.want != nil) {
			t.Errorf("%s: %v, %v", name, got, err)
			continue
		}
		if len(got) != len(test.want) {
			t.Errorf("%s: %v", name, got)
			continue
		}
		for i := range got {
			if got[i] != test.want[i] {
				t.Errorf("%s: %v", name, got)
			}
		}
	}
}
