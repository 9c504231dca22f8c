package sts_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// Every decoder and parser, fed with anything: it must not panic, must refuse
// with a kind of this package, and what it accepts must print as it was read.

func known(t *testing.T, err error) {
	t.Helper()
	for _, k := range []error{sts.ErrFormat, sts.ErrCheckDigit, sts.ErrRange, sts.ErrCRC, sts.ErrReserved, sts.ErrDDTKCredit, sts.ErrKey, sts.ErrTables, sts.ErrKeyChange, sts.ErrBeforeBaseDate, sts.ErrExpired} {
		if errors.Is(err, k) {
			return
		}
	}
	t.Fatalf("unexpected error %v", err)
}

func FuzzParseToken(f *testing.F) {
	f.Add("58625789986991357486")
	f.Add("73786976294838206464")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := sts.ParseToken(s)
		if err != nil {
			known(t, err)
			return
		}
		if token.String() != s {
			t.Fatalf("%q prints as %q", s, token)
		}
	})
}

func FuzzParseTokenHex(f *testing.F) {
	f.Add("32D98A5616345BE2E")
	f.Add("40000000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := sts.ParseTokenHex(s)
		if err != nil {
			known(t, err)
			return
		}
		if token.Hex() != strings.ToUpper(s) {
			t.Fatalf("%q prints as %q", s, token.Hex())
		}
	})
}

// FuzzDecode opens any token; what decodes must encode to the same token.
func FuzzDecode(f *testing.F) {
	f.Add("58625789986991357486", true)
	f.Add("51043465443420856213", false)
	f.Add("00000000000150997584", true)
	f.Fuzz(func(t *testing.T, s string, ea11 bool) {
		token, err := sts.ParseToken(s)
		if err != nil {
			return
		}
		v := newVend(t, sts.DKGA04, algorithm(ea11), sts.ConstantTime)
		m, err := v.engine.Decode(v.key, token)
		if err != nil {
			known(t, err)
			return
		}
		sameToken(t, v, m, token)
	})
}

// FuzzMessage reads any data block with a fitting check field, which FuzzDecode
// meets only by chance.
func FuzzMessage(f *testing.F) {
	for _, block := range []uint64{0x05014EEC0001 << 16, 0x42068B1F2B01 << 16, 0x38921B4D06CE << 16, 0x8E5B94F97085 << 16, 0x5000000000 << 16} {
		for class := range byte(4) {
			f.Add(class, block, true)
			f.Add(class, block, false)
		}
	}
	f.Fuzz(func(t *testing.T, class byte, block uint64, ea11 bool) {
		a := withCheckField(sts.Class(class&3), block&^0xFFFF)
		m, err := a.Message(algorithm(ea11))
		if err != nil {
			known(t, err)
			return
		}
		back, err := m.APDU()
		if management, ok := m.(sts.Management); ok && management.SubClass == sts.ClearTamperCondition && management.Value != 0 {
			known(t, err) // a meter reads the padding, nobody issues it
			return
		}
		if err != nil || back != a {
			t.Fatalf("%016X is %+v, then %016X, %v", a.Block(), m, back.Block(), err)
		}
	})
}

func algorithm(ea11 bool) sts.EA {
	if ea11 {
		return sts.EA11
	}
	return sts.EA07
}

func sameToken(t *testing.T, v *vend, m sts.Message, token sts.Token) {
	t.Helper()
	again, err := v.engine.Encode(v.key, m)
	if management, ok := m.(sts.Management); ok && management.SubClass == sts.ClearTamperCondition && management.Value != 0 {
		known(t, err)
		return
	}
	if err != nil || again != token {
		t.Fatalf("%v is %+v, then %v, %v", token, m, again, err)
	}
}

func FuzzParsePAN(f *testing.F) {
	for _, s := range []string{"11111111115", "0100000000008", "600727000000000009", "12345678904"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := sts.ParsePAN(s)
		if err != nil {
			known(t, err)
			return
		}
		if p.String() != s && p.DRN() != s {
			t.Fatalf("%q prints as %q", s, p)
		}
		if again, err := sts.ParsePAN(p.DRN()); err != nil || again != p {
			t.Fatalf("%q has DRN %q, which is %q, %v", s, p.DRN(), again, err)
		}
	})
}

func FuzzParseIDRecord(f *testing.F) {
	f.Add("00000260060135803400000207999907012")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := sts.ParseIDRecord(s)
		if err != nil {
			known(t, err)
			return
		}
		if r.String() != s {
			t.Fatalf("%q prints as %q", s, r)
		}
		if again, err := sts.ParseRecord2(r.Record2()); err != nil || again != r {
			t.Fatalf("%q as track 2 is %+v, %v", s, again, err)
		}
	})
}

func FuzzParseRecord2(f *testing.F) {
	f.Add(";000002600601358034==0207999907012?")
	f.Add(";600727111111111153=29110211123456999?")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := sts.ParseRecord2(s)
		if err != nil {
			known(t, err)
			return
		}
		if again, err := sts.ParseRecord2(r.Record2()); err != nil || again != r {
			t.Fatalf("%q is %+v, printed and read %+v, %v", s, r, again, err)
		}
	})
}

func FuzzParseTables(f *testing.F) {
	f.Add([]byte(`{"sub0":[12,10,8,4,3,15,0,2,14,1,5,13,6,9,7,11],"sub1":[6,9,7,4,3,10,12,14,2,13,1,15,0,11,8,5],"perm":[0]}`))
	f.Add([]byte(`{"sub0":[-1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tables, err := sts.ParseTables("fuzz", data)
		if err != nil {
			known(t, err)
			return
		}
		key, err := sts.NewDecoderKey(sts.EA07, sts.DUTK, []byte("8 bytes!"))
		check(t, err)
		e := sts.NewEngine(tables, sts.ConstantTime)
		if x := e.DecryptBlock(key, e.EncryptBlock(key, 0x0123456789ABCDEF)); x != 0x0123456789ABCDEF {
			t.Fatalf("accepted tables do not decrypt: %016X", x)
		}
	})
}

func FuzzParseCurrencyUnits(f *testing.F) {
	for _, s := range []string{"0", "-1", "163830000000000000000000000000000000", "340282366920938463463374607431768211456"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := sts.ParseCurrencyUnits(s)
		if err != nil {
			known(t, err)
			return
		}
		a, err := sts.EncodeCurrency(c)
		if err != nil {
			known(t, err)
			return
		}
		if a.Currency().Cmp(c) < 0 {
			t.Fatalf("%s issued as %s", c.Units(), a.Currency().Units())
		}
	})
}

func FuzzFloatAmounts(f *testing.F) {
	for _, v := range []float64{0, 0.3, 102.00000381, -5e-6, 1.6383e30, math.Inf(1), 5e-324} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v float64) {
		c, err := sts.CurrencyOfFloat(v)
		if err != nil {
			known(t, err)
			return
		}
		if math.Abs(v) < 1e9 && math.Abs(c.Float64()-v) > 0.0000050001 {
			t.Fatalf("%v is %s", v, c)
		}
		units, err := sts.UnitsOfFloat(v)
		if err != nil {
			known(t, err)
			return
		}
		if float64(units) < v-0.000005001 || float64(units) >= v+1 {
			t.Fatalf("%v is %d units", v, units)
		}
	})
}
