package sts_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

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

func TestRefusedMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		m    sts.Message
		kind error
	}{
		{sts.Credit{Resource: 4}, sts.ErrRange}, {sts.Credit{RND: 16}, sts.ErrRange}, {sts.Credit{TID: 1 << 24}, sts.ErrRange},
		{sts.CurrencyCredit{Resource: 4}, sts.ErrRange}, {sts.CurrencyCredit{Amount: 1 << 20}, sts.ErrRange}, {sts.CurrencyCredit{TID: 1 << 24}, sts.ErrRange},
		{sts.Management{SubClass: 3}, sts.ErrReserved}, {sts.Management{SubClass: 9}, sts.ErrReserved}, {sts.Management{SubClass: 16}, sts.ErrRange},
		{sts.Management{SubClass: 5, Value: 1}, sts.ErrRange}, {sts.Management{RND: 16}, sts.ErrRange},
		{sts.MeterTest{SubClass: 3}, sts.ErrReserved}, {sts.MeterTest{SubClass: 16}, sts.ErrReserved}, {sts.MeterTest{Control: 1 << 36}, sts.ErrRange},
		{sts.MeterTest{SubClass: 1, Control: 1 << 28}, sts.ErrRange}, {sts.MeterTest{Manufacturer: 100}, sts.ErrRange}, {sts.MeterTest{SubClass: 6, Manufacturer: 10000}, sts.ErrRange},
		{sts.KeySection{Number: 1}, sts.ErrRange}, {sts.KeySection{EA: sts.EA07, Number: 1}, sts.ErrRange}, {sts.KeySection{EA: sts.EA07, Number: 1, KRN: 1, KT: 4}, sts.ErrRange},
		{sts.KeySection{EA: sts.EA11, Number: 1, KRN: 1, Three: true}, sts.ErrRange}, {sts.KeySection{EA: sts.EA07, Number: 2, TI: 100}, sts.ErrRange},
		{sts.KeySection{EA: sts.EA07, Number: 2, KEN: 16}, sts.ErrRange}, {sts.KeySection{EA: sts.EA07, Number: 3, SGC: 1000000}, sts.ErrRange},
		{sts.KeySection{EA: sts.EA07, Number: 3, Key: 1}, sts.ErrRange}, {sts.KeySection{EA: sts.EA07, Number: 4}, sts.ErrRange}, {sts.KeySection{EA: sts.EA11, Number: 4, SGC: 0x1000}, sts.ErrRange},
		{sts.KeySection{EA: sts.EA11, Number: 5}, sts.ErrRange}, {sts.KeySection{EA: sts.EA11, Number: 2, KRN: 1}, sts.ErrRange},
	} {
		_, err := c.m.APDU()
		isKind(t, err, c.kind)
		_, err = sts.NewEngine(nil, sts.ConstantTime).Encode(sts.DecoderKey{}, c.m)
		isKind(t, err, c.kind)
	}
}

// TestRefusedContent: blocks with a fitting check field whose fields are not
// defined.
func TestRefusedContent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		class sts.Class
		block uint64
		ea    sts.EA
		kind  error
	}{
		{sts.ClassCredit, 8 << 60, sts.EA11, sts.ErrReserved}, {sts.ClassCredit, 15 << 60, sts.EA11, sts.ErrReserved},
		{sts.ClassMeterTest, 3 << 60, sts.EA11, sts.ErrReserved}, {sts.ClassMeterTest, 5 << 60, sts.EA11, sts.ErrReserved},
		{sts.ClassMeterTest, 100 << 16, sts.EA11, sts.ErrRange}, {sts.ClassMeterTest, 1<<60 | 10000<<16, sts.EA11, sts.ErrRange},
		{sts.ClassReserved, 0, sts.EA11, sts.ErrReserved},
		{sts.ClassManagement, 3 << 60, sts.EA11, sts.ErrRange},             // KRN 0
		{sts.ClassManagement, 3<<60 | 10<<52, sts.EA07, sts.ErrRange},      // KRN 10
		{sts.ClassManagement, 3<<60 | 0x14<<48, sts.EA11, sts.ErrRange},    // reserved bit
		{sts.ClassManagement, 4<<60 | 100<<48, sts.EA11, sts.ErrRange},     // TI 100
		{sts.ClassManagement, 8<<60 | 1<<16, sts.EA07, sts.ErrRange},       // padding
		{sts.ClassManagement, 8<<60 | 1000000<<36, sts.EA07, sts.ErrRange}, // SGC
		{sts.ClassManagement, 9 << 60, sts.EA07, sts.ErrRange},             // no fourth section
		{sts.ClassManagement, 4 << 60, 9, sts.ErrRange},                    // no such algorithm
	} {
		a := withCheckField(c.class, c.block)
		if !a.Valid() || a.Class() != c.class {
			t.Fatalf("%v: no check field found", a)
		}
		_, err := a.Message(c.ea)
		isKind(t, err, c.kind)
	}
	_, err := sts.NewAPDU(sts.ClassCredit, 1).Message(sts.EA11)
	isKind(t, err, sts.ErrCRC)
}

// withCheckField searches the check field of a block.
func withCheckField(class sts.Class, block uint64) sts.APDU {
	for c := range uint64(1 << 16) {
		if a := sts.NewAPDU(class, block|c); a.Valid() {
			return a
		}
	}
	return sts.APDU{}
}

func TestEngineRefusals(t *testing.T) {
	t.Parallel()
	e := sts.NewEngine(nil, sts.ConstantTime)
	credit, err := sts.Credit{TID: 1}.APDU()
	check(t, err)
	ddtk, err := sts.NewDecoderKey(sts.EA11, sts.DDTK, make([]byte, 16))
	check(t, err)
	dutk, err := sts.NewDecoderKey(sts.EA11, sts.DUTK, make([]byte, 16))
	check(t, err)
	_, err = e.Encrypt(ddtk, credit)
	isKind(t, err, sts.ErrDDTKCredit)
	_, err = e.Encrypt(sts.DecoderKey{}, credit)
	isKind(t, err, sts.ErrKey)
	_, err = e.Encrypt(dutk, sts.NewAPDU(sts.ClassReserved, 0))
	isKind(t, err, sts.ErrReserved)

	token, err := e.Encrypt(dutk, credit)
	check(t, err)
	if token.Class() != sts.ClassCredit {
		t.Error(token.Class())
	}
	a, err := e.Decrypt(ddtk, token)
	isKind(t, err, sts.ErrDDTKCredit)
	if a != credit {
		t.Error("the refused credit is not shown")
	}
	_, err = e.Decode(ddtk, token)
	isKind(t, err, sts.ErrDDTKCredit)
	_, err = e.Decrypt(sts.DecoderKey{}, token)
	isKind(t, err, sts.ErrKey)
	other, err := sts.NewDecoderKey(sts.EA11, sts.DUTK, []byte("another key 1234"))
	check(t, err)
	_, err = e.Decrypt(other, token)
	isKind(t, err, sts.ErrCRC)
	reserved, err := sts.ParseTokenHex("00000000018000000")
	check(t, err)
	_, err = e.Decrypt(dutk, reserved)
	isKind(t, err, sts.ErrReserved)

	change := sts.KeyChange{Key: dutk, KRN: 1, TI: 1, SGC: 1}
	ea07, err := sts.NewDecoderKey(sts.EA07, sts.DUTK, make([]byte, 8))
	check(t, err)
	dctk, err := sts.NewDecoderKey(sts.EA11, sts.DCTK, make([]byte, 16))
	check(t, err)
	ditk, err := sts.NewDecoderKey(sts.EA11, sts.DITK, make([]byte, 16))
	check(t, err)
	_, err = e.KeyChangeTokens(ea07, change, 4)
	isKind(t, err, sts.ErrKeyChange)
	_, err = e.KeyChangeTokens(dctk, change, 4)
	isKind(t, err, sts.ErrKeyChange)
	for _, count := range []int{0, 2, 3, 5} {
		_, err = e.KeyChangeTokens(dutk, change, count)
		isKind(t, err, sts.ErrRange)
	}
	for _, bad := range []sts.KeyChange{{Key: dutk, TI: 1, SGC: 1}, {Key: dutk, KRN: 1, TI: 100}, {Key: dutk, KRN: 1, SGC: 1000000}} {
		_, err = e.KeyChangeTokens(dutk, bad, 4)
		isKind(t, err, sts.ErrRange)
	}
	_, err = sts.KeyChange{Key: ditk, KRN: 1}.Sections(4)
	isKind(t, err, sts.ErrKeyChange)
}

func TestCollectedSectionRefusals(t *testing.T) {
	t.Parallel()
	var set sts.KeySections
	_, err := set.With(sts.KeySection{EA: sts.EA11, Number: 7})
	isKind(t, err, sts.ErrRange)
	set, err = set.With(sts.KeySection{EA: sts.EA11, Number: 2})
	check(t, err)
	if fmt.Sprint(set.Missing()) != "[1 3 4]" || set.Has(0) || set.Has(5) || !set.Has(2) {
		t.Error(set.Missing())
	}
	_, err = set.With(sts.KeySection{EA: sts.EA07, Number: 2})
	isKind(t, err, sts.ErrKeyChange)
	// a set that names no key type but DITK, then one whose SGC is no code
	for number, s := range []sts.KeySection{{EA: sts.EA11, Number: 1, KRN: 1}, {EA: sts.EA11, Number: 3, SGC: 0xFFF}, {EA: sts.EA11, Number: 4, SGC: 0xFFF}} {
		if set, err = set.With(s); err != nil {
			t.Fatal(number, err)
		}
	}
	_, ok, err := set.Complete()
	isKind(t, err, sts.ErrKeyChange)
	set, err = set.With(sts.KeySection{EA: sts.EA11, Number: 1, KRN: 1, KT: sts.DUTK})
	check(t, err)
	_, ok2, err := set.Complete()
	isKind(t, err, sts.ErrRange)
	if ok || ok2 {
		t.Error("a refused set is complete")
	}
}

func TestExtendedFields(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flag uint16
		on   bool
		want sts.Extended
	}{{0, false, 0xFC00}, {0, true, 0xFC01}, {11, true, 0xFC17}, {511, true, 0xFFFF}} {
		e, err := sts.ExtendedFlag(c.flag, c.on)
		if err != nil || e != c.want {
			t.Errorf("flag %d: %04X, %v", c.flag, uint16(e), err)
		}
		flag, on, ok := e.Flag()
		if _, _, register := e.Register(); flag != c.flag || on != c.on || !ok || register {
			t.Errorf("%04X reads %d %v %v", uint16(e), flag, on, ok)
		}
	}
	e, err := sts.ExtendedRegister(0, 123)
	if err != nil || e != 0x007B {
		t.Errorf("%04X, %v", uint16(e), err)
	}
	e, err = sts.ExtendedRegister(62, 1023)
	register, value, ok := e.Register()
	if _, _, flag := e.Flag(); err != nil || register != 62 || value != 1023 || !ok || flag {
		t.Errorf("%04X reads %d %d %v, %v", uint16(e), register, value, ok, err)
	}
	if c, err := sts.ReadFlagControl(0); err != nil || c != 0xFC0000000 {
		t.Errorf("%09X, %v", c, err)
	}
	if c, err := sts.ReadFlagControl(511); err != nil || c != 0xFFFE00000 {
		t.Errorf("%09X, %v", c, err)
	}
	if c, err := sts.ReadRegisterControl(62); err != nil || c != 0xF80000000 {
		t.Errorf("%09X, %v", c, err)
	}
	_, err1 := sts.ExtendedFlag(512, true)
	_, err2 := sts.ExtendedRegister(63, 0)
	_, err3 := sts.ExtendedRegister(0, 1024)
	_, err4 := sts.ReadFlagControl(512)
	_, err5 := sts.ReadRegisterControl(63)
	_, err6 := sts.TestControl(0, 37)
	_, err7 := sts.TestControl(1, 29)
	for _, err := range []error{err1, err2, err3, err4, err5, err6, err7} {
		isKind(t, err, sts.ErrRange)
	}
	if all, err := sts.TestControl(sts.MeterTest4Digit, sts.TestAll); err != nil || all != 0xFFFFFFF {
		t.Errorf("%X, %v", all, err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	_, err := sts.NewDecoderKey(9, sts.DUTK, make([]byte, 8))
	isKind(t, err, sts.ErrRange)
	_, err = sts.NewDecoderKey(sts.EA07, 4, make([]byte, 8))
	isKind(t, err, sts.ErrRange)
	_, err = sts.NewDecoderKey(sts.EA11, sts.DUTK, make([]byte, 8))
	isKind(t, err, sts.ErrKey)
	for _, c := range []struct {
		g sts.DKGA
		n int
	}{{sts.DKGA02, 20}, {sts.DKGA04, 8}, {1, 8}, {3, 16}} {
		_, err = sts.NewVendingKey(c.g, make([]byte, c.n))
		isKind(t, err, sts.ErrKey)
	}

	key, err := sts.NewDecoderKey(sts.EA07, sts.DUTK, unhex(t, "7676767676767676"))
	check(t, err)
	if key.KCV().String() != "4CBE91" {
		t.Error(key.KCV())
	}
	ea11, err := sts.NewDecoderKey(sts.EA11, sts.DUTK, unhex(t, "00112233445566778899AABBCCDDEEFF"))
	check(t, err)
	zeros := sts.NewEngine(nil, sts.TableDriven).EncryptBlock(ea11, 0)
	if got := fmt.Sprintf("%06X", zeros>>40); ea11.KCV().String() != got {
		t.Error(ea11.KCV(), got)
	}
	if key.Equal(ea11) || !key.Equal(key) || (sts.DecoderKey{}).AppendBytes(nil) != nil || !(sts.DecoderKey{}).IsZero() {
		t.Error("Equal, AppendBytes or IsZero")
	}

	v := newVend(t, sts.DKGA04, sts.EA11, sts.ConstantTime)
	h := hmac.New(sha256.New, unhex(t, "ABABABABABABABAB949494949494949401234567"))
	if got, want := v.vending.KCV().String(), fmt.Sprintf("%X", h.Sum(nil)[:3]); got != want {
		t.Errorf("KCV %s, want %s", got, want)
	}
	for _, secret := range []any{key, ea11, v.vending, &key} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			text := fmt.Sprintf(verb, secret)
			if !strings.HasPrefix(text, "DecoderKey(EA") && !strings.HasPrefix(text, "VendingKey(DKGA") || strings.Contains(strings.ToUpper(text), "7676") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	if v.vending.DKGA() != sts.DKGA04 {
		t.Error(v.vending.DKGA())
	}

	good := v.params
	for change, kind := range map[*func(*sts.KeyParams)]error{
		ptr(func(p *sts.KeyParams) { p.PAN = sts.PAN{} }): sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.EA = 9 }):          sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.KT = sts.DITK }):   sts.ErrKey,
		ptr(func(p *sts.KeyParams) { p.KT = 4 }):          sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.SGC = 1000000 }):   sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.KRN = 0 }):         sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.TI = 100 }):        sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.BaseDate = 2000 }): sts.ErrRange,
	} {
		p := good
		(*change)(&p)
		_, err := v.vending.DecoderKey(p)
		isKind(t, err, kind)
	}
	_, err = newVend(t, sts.DKGA02, sts.EA07, sts.ConstantTime).vending.DecoderKey(good)
	isKind(t, err, sts.ErrKey)

	// every meter of a common key has the same one
	good.KT = sts.DCTK
	common, err := v.vending.DecoderKey(good)
	check(t, err)
	good.PAN = mustPAN(t, "11111111115")
	other, err := v.vending.DecoderKey(good)
	check(t, err)
	if !common.Equal(other) || common.KeyType() != sts.DCTK {
		t.Error("the common key depends on the meter")
	}

	v.vending.Wipe()
	if wiped, err := v.vending.DecoderKey(v.params); err == nil && wiped.Equal(v.key) {
		t.Error("the key survives Wipe")
	}
}

func ptr[T any](v T) *T { return &v }

func TestOddParity(t *testing.T) {
	t.Parallel()
	for b := range 256 {
		got := sts.OddParity([8]byte{3: byte(b)})
		ones := 0
		for i := range 8 {
			ones += int(got[3] >> i & 1)
		}
		if ones%2 != 1 || got[3]&^1 != byte(b)&^1 || got[0] != 1 {
			t.Errorf("%02X becomes %02X", b, got[3])
		}
	}
}

func TestParseTokenRefusals(t *testing.T) {
	t.Parallel()
	for in, kind := range map[string]error{"": sts.ErrFormat, "1234567890123456789": sts.ErrFormat, "1234567890123456789x": sts.ErrFormat, "x2345678901234567890": sts.ErrFormat,
		"73786976294838206464": sts.ErrRange, "99999999999999999999": sts.ErrRange} {
		_, err := sts.ParseToken(in)
		isKind(t, err, kind)
	}
	if last, err := sts.ParseToken("73786976294838206463"); err != nil || last.Hex() != "3FFFFFFFFFFFFFFFF" || last.Class() != sts.ClassReserved {
		t.Errorf("%v %v", last, err)
	}
	for in, kind := range map[string]error{"": sts.ErrFormat, "0000000000000000": sts.ErrFormat, "0000000000000000g": sts.ErrFormat, "40000000000000000": sts.ErrRange} {
		_, err := sts.ParseTokenHex(in)
		isKind(t, err, kind)
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	const sample = `{"sub0":[12,10,8,4,3,15,0,2,14,1,5,13,6,9,7,11],"sub1":[6,9,7,4,3,10,12,14,2,13,1,15,0,11,8,5],
"perm":[29,27,34,9,16,62,55,2,40,49,38,25,33,61,30,23,1,41,21,57,42,15,5,58,19,53,22,17,48,28,24,39,
3,60,36,14,11,52,54,12,31,51,10,26,0,45,37,43,44,6,59,4,7,35,56,50,13,18,32,47,46,63,20,8],"comment":"ignored"}`
	loaded, err := sts.ParseTables("mine", []byte(sample))
	check(t, err)
	if loaded.Name() != "mine" || loaded.Fingerprint() != sts.IECSample().Fingerprint() {
		t.Error("the loaded set is not the sample")
	}
	for _, edit := range [][2]string{{"12,10,8", "12,10,9"}, {"[6,9", "[9,6"}, {"29,27", "29,29"}, {"29,27", "64,27"}, {"29,27", "27"}, {"[6,9", "[9"}, {"12,10,8", "-1,10,8"}, {"12,10,8", "256,10,8"}, {"12,10,8", "99,10,8"}} {
		_, err := sts.ParseTables("bad", []byte(strings.Replace(sample, edit[0], edit[1], 1)))
		isKind(t, err, sts.ErrTables)
	}
	for _, bad := range []string{"", "[]", `{"sub0":"x"}`, sample + "x"} {
		_, err := sts.ParseTables("bad", []byte(bad))
		isKind(t, err, sts.ErrFormat)
	}
}

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

// TestIssuingDoesNotAllocate covers the whole issuing path.
func TestIssuingDoesNotAllocate(t *testing.T) {
	for _, c := range []struct {
		g  sts.DKGA
		ea sts.EA
	}{{sts.DKGA04, sts.EA11}, {sts.DKGA04, sts.EA07}, {sts.DKGA02, sts.EA07}} {
		for _, variant := range variants {
			v := newVend(t, c.g, c.ea, variant)
			var out [20]byte
			var failed error
			if n := testing.AllocsPerRun(100, func() {
				_, err := v.creditFromVendingKey(123, out[:0])
				failed = errors.Join(failed, err)
			}); n != 0 {
				t.Errorf("DKGA%v EA%v %v: credit allocates %v times", c.g, c.ea, variant, n)
			}
			if n := testing.AllocsPerRun(100, func() {
				money, err1 := sts.CurrencyOfFloat(12.345)
				amount, err2 := sts.EncodeCurrency(money)
				units, err3 := sts.UnitsOfFloat(102.5)
				apdu, err4 := sts.CurrencyCredit{TID: 1, Amount: amount}.APDU()
				token, err5 := v.engine.Encrypt(v.key, apdu)
				if err1 != nil || err2 != nil || err3 != nil || err4 != nil || err5 != nil || units != 103 {
					failed = errors.New("currency credit failed")
				}
				token.AppendHex(out[:0])
			}); n != 0 {
				t.Errorf("DKGA%v EA%v %v: currency credit allocates %v times", c.g, c.ea, variant, n)
			}
			if n := testing.AllocsPerRun(100, func() {
				apdu, err := sts.Management{SubClass: sts.ClearCredit, TID: 1, Value: sts.RegisterAll}.APDU()
				token, err2 := v.engine.Encrypt(v.key, apdu)
				back, err3 := v.engine.Decrypt(v.key, token)
				if err != nil || err2 != nil || err3 != nil || back != apdu {
					failed = errors.New("management token failed")
				}
			}); n != 0 {
				t.Errorf("DKGA%v EA%v %v: management allocates %v times", c.g, c.ea, variant, n)
			}
			check(t, failed)
		}
	}
}
