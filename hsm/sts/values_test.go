package sts_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

func TestFloatAmounts(t *testing.T) {
	t.Parallel()
	for f, want := range map[float64]uint64{0: 0, 102.00000381: 102, 102.5: 103, 0.1 + 0.2: 1, 3: 3, 2.9999999999: 3, 3.00001: 4, 3.000004: 3, 1e-9: 0, 18201624: sts.MaxUnits, 18201624.000001: sts.MaxUnits} {
		if got, err := sts.UnitsOfFloat(f); err != nil || got != want {
			t.Errorf("%v: %d, %v, want %d", f, got, err, want)
		}
	}
	for _, f := range []float64{-1, -0.00001, 18201624.00001, 1e30, math.NaN(), math.Inf(1)} {
		_, err := sts.UnitsOfFloat(f)
		isKind(t, err, sts.ErrRange)
	}
	x, y := 0.1, 0.2 // as variables, so that the sum carries its dust
	for f, want := range map[float64]string{x + y: "0.30000", 0: "0.00000", 12.345: "12.34500", -12.345: "-12.34500", 0.000005: "0.00001", -0.000005: "0.00000", -0.0000051: "-0.00001",
		1e-300: "0.00000", 1.6383e30: "1638300000000000000000000000000.00000", 1e15: "1000000000000000.00000", math.Copysign(0, -1): "0.00000"} {
		if got, err := sts.CurrencyOfFloat(f); err != nil || got.String() != want {
			t.Errorf("%v: %s, %v, want %s", f, got, err, want)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e34, math.MaxFloat64} {
		_, err := sts.CurrencyOfFloat(f)
		isKind(t, err, sts.ErrRange)
	}
	for _, f := range []float64{1.6383e30, -1.6383e30, 123456789012.25, -0.5} {
		c, err := sts.CurrencyOfFloat(f)
		if err != nil || c.Float64() != f {
			t.Errorf("%v returns as %v, %v", f, c.Float64(), err)
		}
	}
}

func TestCurrencyValues(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "-", "+1", "1.5", "12a"} {
		_, err := sts.ParseCurrencyUnits(bad)
		isKind(t, err, sts.ErrFormat)
	}
	_, err := sts.ParseCurrencyUnits("340282366920938463463374607431768211456")
	isKind(t, err, sts.ErrRange)
	big, err := sts.ParseCurrencyUnits("340282366920938463463374607431768211455")
	check(t, err)
	_, err = sts.EncodeCurrency(big)
	isKind(t, err, sts.ErrRange)
	if _, ok := big.Int64(); ok || big.Units() != "340282366920938463463374607431768211455" {
		t.Error(big.Units())
	}
	for _, n := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		c := sts.CurrencyUnits(n)
		if back, ok := c.Int64(); !ok || back != n || c.Units() != fmt.Sprint(n) {
			t.Errorf("%d is %s, %d", n, c.Units(), back)
		}
	}
	order := []sts.Currency{sts.CurrencyUnits(-2), sts.CurrencyUnits(-1), {}, sts.CurrencyUnits(1), sts.CurrencyUnits(2), big}
	for i, a := range order {
		for j, b := range order {
			if got, want := a.Cmp(b), sign(i-j); got != want {
				t.Errorf("%s to %s: %d", a, b, got)
			}
		}
		if a.Sign() != sign(i-2) {
			t.Errorf("sign of %s", a)
		}
	}
	if minus, err := sts.ParseCurrencyUnits("-0"); err != nil || minus != (sts.Currency{}) {
		t.Error("minus zero is not zero")
	}
}

func sign(n int) int { return max(-1, min(n, 1)) }

func TestRecords(t *testing.T) {
	t.Parallel()
	r := sts.IDRecord{PAN: mustPAN(t, "11111111115"), DOE: sts.DOE{Year: 29, Month: 11}, TCT: 2, EA: sts.EA11, SGC: 123456, TI: 99, KRN: 9}
	const text, track = "600727111111111153" + "2911" + "02" + "11" + "123456" + "99" + "9", ";600727111111111153=29110211123456999?"
	if r.String() != text || r.Record2() != track {
		t.Fatal(r.String(), r.Record2())
	}
	none := r
	none.DOE = sts.DOE{}
	for in, want := range map[string]sts.IDRecord{track: r, strings.Trim(track, ";?"): r, ";600727111111111153=2911=0211123456999?": r,
		none.Record2(): none, "600727111111111153=0211123456999": none, "600727111111111153=00000211123456999": none} {
		if got, err := sts.ParseRecord2(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	if got, err := sts.ParseIDRecord(text); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	replace := func(at int, with string) string { return text[:at] + with + text[at+len(with):] }
	for in, kind := range map[string]error{"": sts.ErrFormat, text + "0": sts.ErrFormat, replace(17, "0"): sts.ErrCheckDigit, replace(18, "x"): sts.ErrFormat, replace(30, "x"): sts.ErrFormat,
		replace(20, "13"): sts.ErrRange, replace(18, "0100"): sts.ErrRange, replace(34, "0"): sts.ErrRange} {
		_, err := sts.ParseIDRecord(in)
		isKind(t, err, kind)
	}
	for _, in := range []string{"", ";600727111111111153?", "6007271111111111=2911" + text[22:], track + "9", "600727111111111153=29" + text[22:]} {
		_, err := sts.ParseRecord2(in)
		isKind(t, err, sts.ErrFormat)
	}
	for at, expired := range map[string]bool{"2029-10-31T23:59:59Z": false, "2029-11-01T00:00:00Z": true, "2030-01-01T00:00:00Z": true} {
		now, err := time.Parse(time.RFC3339, at)
		check(t, err)
		if r.DOE.Expired(now) != expired || none.DOE.Expired(now) {
			t.Error(at)
		}
	}
	if !(sts.DOE{Year: 93, Month: 1}).Expired(time.Date(1993, 1, 1, 0, 0, 0, 0, time.UTC)) || (sts.DOE{Year: 92, Month: 1}).Expired(time.Date(2091, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Error("the century of a date of expiry")
	}
}

// TestPAN covers the valid and the refused examples.
func TestPAN(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, pan, iin, drn, manufacturer string }{
		{"00000000000", "600727000000000009", "600727", "00000000000", "00"},
		{"0100000000008", "000001000000000082", "0000", "0100000000008", "0100"},
		{"11111111115", "600727111111111153", "600727", "11111111115", "11"},
		{"600727111111111153", "600727111111111153", "600727", "11111111115", "11"},
		{"000001000000000082", "000001000000000082", "0000", "0100000000008", "0100"},
	} {
		p, err := sts.ParsePAN(c.in)
		if err != nil || p.String() != c.pan || p.IIN() != c.iin || p.DRN() != c.drn || p.Manufacturer() != c.manufacturer || p.IsZero() {
			t.Errorf("%s: %s %s %s %s, %v", c.in, p, p.IIN(), p.DRN(), p.Manufacturer(), err)
		}
		serial := c.drn[len(c.manufacturer) : len(c.drn)-1]
		if made, err := sts.NewPAN(c.manufacturer, serial); err != nil || made != p {
			t.Errorf("made %s of %s %s, %v", made, c.manufacturer, serial, err)
		}
	}
	for in, kind := range map[string]error{
		"12345678904": sts.ErrCheckDigit, "11111111113": sts.ErrCheckDigit, "600727000000000000": sts.ErrCheckDigit,
		"600727000000000109": sts.ErrCheckDigit, "": sts.ErrFormat, "1234567890": sts.ErrFormat, "1111111111a": sts.ErrFormat,
		"123456789012345678": sts.ErrFormat, "-1111111115": sts.ErrFormat,
	} {
		_, err := sts.ParsePAN(in)
		isKind(t, err, kind)
	}
	_, err := sts.NewPAN("123", "00000000")
	isKind(t, err, sts.ErrFormat)
	_, err = sts.NewPAN("1a", "00000000")
	isKind(t, err, sts.ErrFormat)
	var none sts.PAN
	if none.String()+none.DRN()+none.IIN()+none.Manufacturer() != "" || !none.IsZero() {
		t.Error("the zero PAN has digits")
	}
	if sts.CommonPAN() != mustPAN(t, "600727000000000009") {
		t.Error("the common PAN fails its own check digits")
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		sts.EA07.String(): "07", sts.EA11.String(): "11", sts.DKGA02.String(): "02", sts.DKGA04.String(): "04",
		sts.DITK.String(): "DITK", sts.DDTK.String(): "DDTK", sts.DUTK.String(): "DUTK", sts.DCTK.String(): "DCTK", sts.KeyType(7).String(): "KT7",
		sts.DDTK.VendingName(): "VDDK", sts.DUTK.VendingName(): "VUDK", sts.DCTK.VendingName(): "VCDK", sts.DITK.VendingName(): "",
		sts.TCTNumeric.String(): "02", sts.SGC(1234).String(): "001234", sts.TI(7).String(): "07", sts.TI(200).String(): "200",
		sts.BaseDate2014.String(): "2014", sts.BaseDate1993.Code(): "93", sts.BaseDate2014.Code(): "14", sts.BaseDate2035.Code(): "35",
		sts.ConstantTime.String(): "constant-time", sts.TableDriven.String(): "table-driven",
		sts.Electricity.String(): "electricity", sts.Water.String(): "water", sts.Gas.String(): "gas", sts.Time.String(): "time", sts.Resource(4).String(): "unknown resource",
		sts.NewAPDU(2, 3<<60).String(): "class 2 subclass 3",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if sts.BaseDate(0).Code() != "" || sts.EA(9).Valid() || sts.EA(9).KeySize() != 0 || sts.KeyType(4).Valid() {
		t.Error("unknown codes pass")
	}
	for text, want := range map[string]sts.BaseDate{"1993": sts.BaseDate1993, "93": sts.BaseDate1993, "2014": sts.BaseDate2014, "14": sts.BaseDate2014, "2035": sts.BaseDate2035, "35": sts.BaseDate2035} {
		if got, err := sts.ParseBaseDate(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	_, err := sts.ParseBaseDate("2015")
	isKind(t, err, sts.ErrFormat)
	for _, bad := range []string{"12345", "1234567", "12345a"} {
		_, err := sts.ParseSGC(bad)
		isKind(t, err, sts.ErrFormat)
	}
	if sts.KRN(1).Next() != 2 || sts.KRN(9).Next() != 1 || sts.KRN(0).Valid() || sts.KRN(10).Valid() {
		t.Error("KRN")
	}
	if sts.DDTK.AllowsCredit() || !sts.DUTK.AllowsCredit() || !sts.DITK.AllowsCredit() || sts.KeyType(4).AllowsCredit() {
		t.Error("AllowsCredit")
	}
	if sts.DCTK.AllowsCarrier(sts.TCTNumeric) || !sts.DCTK.AllowsCarrier(sts.TCTMagneticCard) || !sts.DUTK.AllowsCarrier(sts.TCTNumeric) {
		t.Error("AllowsCarrier")
	}
	if !sts.Rollover(sts.BaseDate2014, sts.BaseDate2035) || sts.Rollover(sts.BaseDate2014, sts.BaseDate2014) || sts.Rollover(sts.BaseDate2014, sts.BaseDate1993) {
		t.Error("Rollover")
	}
}

// TestKENRule: expired when the top 8 bits exceed the number, not when equal.
func TestKENRule(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tid     sts.TID
		ken     sts.KEN
		expired bool
	}{{0xAA0000, 170, false}, {0xAAFFFF, 170, false}, {0xAB0000, 170, true}, {0xFFFFFF, 255, false}, {0x10000, 0, true}, {0xFFFF, 0, false}} {
		if c.ken.Expired(c.tid) != c.expired {
			t.Errorf("TID %06X under KEN %d", c.tid, c.ken)
		}
	}
	for ken := range 256 {
		last := sts.KEN(ken).LastTID()
		if sts.KEN(ken).Expired(last) || ken < 255 && !sts.KEN(ken).Expired(last+1) {
			t.Errorf("KEN %d: last TID %06X", ken, last)
		}
	}
}

func TestKeyChangeTable(t *testing.T) {
	t.Parallel()
	permitted := map[sts.KeyType]string{sts.DITK: "DDTK DUTK DCTK", sts.DDTK: "DDTK DUTK DCTK", sts.DUTK: "DDTK DUTK", sts.DCTK: "DCTK", 4: ""}
	for from, names := range permitted {
		for to := sts.DITK; to <= 4; to++ {
			if got := sts.PermitsKeyChange(from, to); got != strings.Contains(names, to.String()) {
				t.Errorf("%v to %v: %v", from, to, got)
			}
		}
	}
}

func TestMinutesSince1993(t *testing.T) {
	t.Parallel()
	for _, b := range []sts.BaseDate{sts.BaseDate1993, sts.BaseDate2014, sts.BaseDate2035} {
		for _, tid := range []sts.TID{0, 1, 85740, sts.MaxTID} {
			m := b.Minute1993(tid)
			if back, err := b.TIDOfMinute1993(m); err != nil || back != tid {
				t.Errorf("%v %d: %d, %v", b, tid, back, err)
			}
			if first := sts.BaseDate1993.Time(0).Add(time.Duration(m) * time.Minute); !first.Equal(b.Time(tid)) {
				t.Errorf("%v %d: %v", b, tid, first)
			}
		}
	}
	_, err := sts.BaseDate2014.TIDOfMinute1993(11044799)
	isKind(t, err, sts.ErrBeforeBaseDate)
	_, err = sts.BaseDate1993.TIDOfMinute1993(-1)
	isKind(t, err, sts.ErrBeforeBaseDate)
	_, err = sts.BaseDate1993.TIDOfMinute1993(1 << 24)
	isKind(t, err, sts.ErrExpired)
	_, err = sts.BaseDate1993.TIDOfMinute1993(math.MaxInt64)
	isKind(t, err, sts.ErrExpired)
}
