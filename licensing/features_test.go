package licensing_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
)

func TestParseFeatures(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]licensing.Features{
		"": 0,
		"ForeignTokenpen|KISAAgorithms|EllipticCurve": 0x211, // as printed in the guide
		"ForeignTokenOpen|KISAAlgorithms":             0x011,
		"Elliptic curve":                              0x200,
		"ellipticcurve | HSMSPEED2":                   0x8200,
		"9A37":                                        0x9A37,
		"0x9a37":                                      0x9A37,
		"00000000":                                    0,
		"PostQuantum":                                 0,
		"FFFFFFFF":                                    licensing.Known(), // reserved bits have no effect
		"STSVending|STSManufacturing":                 0x11000000,
		strings.Join(licensing.Names(), "|"):          licensing.Known(),
	} {
		if got, err := licensing.ParseFeatures(text); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", text, got.Hex(), err, want.Hex())
		}
	}
	for text, says := range map[string]string{
		"Foo":               `unknown feature "Foo"`,
		"HSMSpeed3":         "never set",
		"FastRandom||":      `unknown feature ""`,
		"|":                 `unknown feature ""`,
		"1FFFFFFFF":         "unknown feature",
		"+1":                "unknown feature",
		"1_0":               "unknown feature",
		"0x":                "unknown feature",
		"9A37|StandardKM":   "unknown feature",
		"FastRandom,ECCMQV": "unknown feature",
	} {
		if got, err := licensing.ParseFeatures(text); !errkind.Is(err, errkind.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %s, %v; want %q", text, got.Hex(), err, says)
		}
	}
}

func TestFeaturesPrintAsTheGuideShows(t *testing.T) {
	t.Parallel()
	const shown = "ForeignTokenOpen|RemoteShare|StandardKM|EllipticCurve|ECCMQV|AcceleratedECC|HSMSpeed2"
	if f := licensing.Features(39459); f.String() != shown || f.Hex() != "00009A23" {
		t.Errorf("%s %s", f, f.Hex())
	}
	for _, name := range licensing.Names() {
		if f, err := licensing.ParseFeatures(name); err != nil || f.String() != name || f.Meaning() == "" || f&(f-1) != 0 {
			t.Errorf("%s: %s %q %v", name, f, f.Meaning(), err)
		}
	}
}

func TestNamesAndWordRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := licensing.Features(rapid.Uint32().Draw(t, "word")) & licensing.Known()
		for _, text := range []string{f.String(), f.Hex()} {
			if got, err := licensing.ParseFeatures(text); err != nil || got != f {
				t.Fatalf("%q: %s, %v", text, got.Hex(), err)
			}
		}
	})
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	const (
		base = licensing.HSMSpeed0 | licensing.STSVending
		mid  = licensing.HSMSpeed1 | licensing.STSVending
		high = licensing.HSMSpeed2 | licensing.STSVending | licensing.STSEA11
	)
	for what, tc := range map[string]struct {
		unit, want, got licensing.Features
		kind            errkind.Kind
		says            string
	}{
		"subset":                     {high, licensing.STSVending, licensing.STSVending, 0, ""},
		"nothing":                    {high, 0, 0, 0, ""},
		"built-in without a licence": {base, licensing.BuiltIn, licensing.BuiltIn, 0, ""},
		"all of it":                  {high, high, high, 0, ""},
		"lower speed":                {high, licensing.HSMSpeed0, licensing.HSMSpeed0, 0, ""},
		"mid on high":                {high, licensing.HSMSpeed1, licensing.HSMSpeed1, 0, ""},
		"mid on mid is converted":    {mid, licensing.HSMSpeed1, licensing.HSMSpeed0, 0, ""},
		"base on mid":                {mid, licensing.HSMSpeed0, licensing.HSMSpeed0, 0, ""},
		"high on mid":                {mid, licensing.HSMSpeed2, 0, errkind.Limit, "no licence for HSMSpeed2 (licence type speed);"},
		"mid on base":                {base, licensing.HSMSpeed1, 0, errkind.Limit, "no licence for HSMSpeed1"},
		"missing ones are all named": {base, licensing.STSEA11 | licensing.ForeignTokenOpen | licensing.HSMSpeed2, 0, errkind.Limit, "no licence for ForeignTokenOpen, STSEA11 (licence type feature), HSMSpeed2 (licence type speed);"},
		"two ratings":                {high, licensing.HSMSpeed0 | licensing.HSMSpeed2, 0, errkind.Invalid, "more than one speed rating"},
	} {
		got, err := tc.unit.Admit(tc.want)
		if got != tc.got || (err == nil) != (tc.says == "") || err != nil && (!errkind.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %s, %v; want %s, %q", what, got, err, tc.got, tc.says)
		}
	}
	if got := mid.Default(); got != licensing.HSMSpeed0|licensing.STSVending {
		t.Errorf("default on a mid-speed unit: %s", got)
	}
	if got := high.Default(); got != high {
		t.Errorf("default on a high-speed unit: %s", got)
	}
}

func TestAdmittedIsNeverMoreThanTheUnit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		unit := licensing.Features(rapid.Uint32().Draw(t, "unit")) & licensing.Known()
		want := licensing.Features(rapid.Uint32().Draw(t, "want")) & licensing.Known()
		for _, got := range []func() (licensing.Features, error){
			func() (licensing.Features, error) { return unit.Admit(want) },
			func() (licensing.Features, error) { return unit.Admit(unit.Default()) },
		} {
			f, err := got()
			if err != nil {
				continue
			}
			if !unit.Has(f&^licensing.SpeedBits) || f.Rating() > unit.Rating() {
				t.Fatalf("unit %s admitted %s", unit, f)
			}
			if unit.Rating() == licensing.Mid && f&licensing.HSMSpeed1 != 0 {
				t.Fatalf("a mid-speed unit admitted HSMSpeed1")
			}
		}
		if _, err := unit.Admit(unit.Default()); err != nil {
			t.Fatalf("the unit does not admit its own default: %v", err)
		}
	})
}

func TestShares(t *testing.T) {
	t.Parallel()
	if got := licensing.HSMSpeed2.ShareOf(licensing.HSMSpeed2, 1); got != (licensing.Speed{Guaranteed: 20_000, Ceiling: 20_000}) {
		t.Errorf("alone at high speed: %+v", got)
	}
	if got := licensing.HSMSpeed2.ShareOf(licensing.HSMSpeed0, 10); got != (licensing.Speed{Guaranteed: 500, Ceiling: 5_000}) {
		t.Errorf("base of ten at high speed: %+v", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		unit := licensing.Features(rapid.Uint32().Draw(t, "unit"))
		n := rapid.IntRange(1, 1000).Draw(t, "active")
		sum := 0
		for i := range n {
			vcm := licensing.Features(rapid.Uint32().Draw(t, "vcm"))
			s := unit.ShareOf(vcm, n)
			if s.Guaranteed > s.Ceiling || s.Ceiling > unit.Rating().Capacity() || s.Ceiling < 1 {
				t.Fatalf("VCM %d: %+v", i, s)
			}
			sum += s.Guaranteed
		}
		if sum > unit.Rating().Capacity() {
			t.Fatalf("%d VCMs are guaranteed %d of %d", n, sum, unit.Rating().Capacity())
		}
	})
}

func FuzzParseFeatures(f *testing.F) {
	for _, s := range []string{"", "9A37", "ForeignTokenpen|KISAAgorithms", "0x", "||", "Elliptic curve"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := licensing.ParseFeatures(s)
		if err != nil {
			return
		}
		if again, err := licensing.ParseFeatures(got.String()); err != nil || again != got {
			t.Fatalf("%q is %s, which reads as %s (%v)", s, got, again, err)
		}
	})
}
