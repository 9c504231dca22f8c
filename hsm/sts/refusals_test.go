package sts_test

import (
	"fmt"
	"testing"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

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
