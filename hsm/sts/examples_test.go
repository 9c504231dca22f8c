package sts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

func mustPAN(t testing.TB, s string) sts.PAN {
	t.Helper()
	p, err := sts.ParsePAN(s)
	check(t, err)
	return p
}

func isKind(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want %v", err, kind)
	}
	var detail *sts.Error
	if !errors.As(err, &detail) || detail.Field == "" || detail.Detail == "" {
		t.Fatalf("error %v names no field", err)
	}
	if text := err.Error(); !strings.HasPrefix(text, kind.Error()+": ") || !strings.Contains(text, detail.Detail) {
		t.Fatalf("error text %q", text)
	}
}

var variants = []sts.Variant{sts.ConstantTime, sts.TableDriven}

// TestWorkedExampleEA11 follows EA11 CTSA01 step 1 from vending key to digits.
func TestWorkedExampleEA11(t *testing.T) {
	t.Parallel()
	secret := unhex(t, "ABABABABABABABAB949494949494949401234567")
	v, err := sts.NewVendingKey(sts.DKGA04, secret)
	check(t, err)
	params := sts.KeyParams{PAN: mustPAN(t, "600727000000000009"), EA: sts.EA11, KT: sts.DUTK, SGC: 201457, KRN: 1, TI: 1, BaseDate: sts.BaseDate2014}
	key, err := v.DecoderKey(params)
	check(t, err)
	if got := fmt.Sprintf("%X", key.AppendBytes(nil)); got != "929BD3A415C9420A05EC5EE9F3CE91C3" {
		t.Fatal(got)
	}
	apdu, err := sts.Credit{Resource: sts.Electricity, RND: 5, TID: 85740, Amount: 1}.APDU()
	check(t, err)
	if apdu.Block() != 0x05014EEC00013188 {
		t.Fatalf("block %016X", apdu.Block())
	}
	for _, variant := range variants {
		e := sts.NewEngine(nil, variant)
		if c := e.EncryptBlock(key, apdu.Block()); c != 0x2D98A5617B45BE2E {
			t.Fatalf("%v: cipher %016X", variant, c)
		}
		token, err := e.Encrypt(key, apdu)
		check(t, err)
		if token.Hex() != "32D98A5616345BE2E" || token.String() != "58625789986991357486" {
			t.Fatalf("%v: token %s %s", variant, token.Hex(), token)
		}
	}
	params.EA = sts.EA07
	key, err = v.DecoderKey(params)
	check(t, err)
	if got := fmt.Sprintf("%X", key.AppendBytes(nil)); got != "87F3ECBB2E46B48F" {
		t.Fatal(got)
	}
}

// TestWorkedExampleEA07 is the example printed in IEC 62055-41, with the sample
// tables.
func TestWorkedExampleEA07(t *testing.T) {
	t.Parallel()
	key, err := sts.NewDecoderKey(sts.EA07, sts.DUTK, unhex(t, "0ABC12DEF3456789"))
	check(t, err)
	apdu := sts.NewAPDU(sts.ClassManagement, 0x0B19EB230100C207)
	for _, variant := range variants {
		e := sts.NewEngine(sts.IECSample(), variant)
		if e.Variant() != variant || e.Tables().Name() != "iec-sample" {
			t.Fatal("engine does not say what it is")
		}
		if c := e.EncryptBlock(key, apdu.Block()); c != 0xC45ED1619406DF95 {
			t.Fatalf("%v: cipher %016X", variant, c)
		}
		if c := e.DecryptBlock(key, 0xC45ED1619406DF95); c != apdu.Block() {
			t.Fatalf("%v: plain %016X", variant, c)
		}
		// the example inserts class 0 into the cipher
		token, err := e.Encrypt(key, sts.NewAPDU(sts.ClassCredit, apdu.Block()))
		check(t, err)
		if token.Hex() != "2C45ED1618406DF95" || token.String() != "51043465443420856213" {
			t.Fatalf("%v: token %s %s", variant, token.Hex(), token)
		}
	}
}

// TestMISTY1Vectors are those of RFC 2994.
func TestMISTY1Vectors(t *testing.T) {
	t.Parallel()
	key, err := sts.NewDecoderKey(sts.EA11, sts.DUTK, unhex(t, "00112233445566778899AABBCCDDEEFF"))
	check(t, err)
	for plain, cipher := range map[uint64]uint64{0x0123456789ABCDEF: 0x8B1DA5F56AB3D07C, 0xFEDCBA9876543210: 0x04B68240B13BE95D} {
		for _, variant := range variants {
			e := sts.NewEngine(nil, variant)
			if c := e.EncryptBlock(key, plain); c != cipher {
				t.Fatalf("%v: %016X", variant, c)
			}
			if p := e.DecryptBlock(key, cipher); p != plain {
				t.Fatalf("%v: %016X", variant, p)
			}
		}
	}
}

// TestDKGA02Example is the published key.
func TestDKGA02Example(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"ABABABABABABABAB", "AAABABABABABABAA"} { // the second lacks parity
		v, err := sts.NewVendingKey(sts.DKGA02, unhex(t, text))
		check(t, err)
		key, err := v.DecoderKey(sts.KeyParams{PAN: mustPAN(t, "600727000000000009"), EA: sts.EA07, KT: sts.DUTK, SGC: 123456, KRN: 1, TI: 1, BaseDate: sts.BaseDate1993})
		check(t, err)
		if got := fmt.Sprintf("%X", key.AppendBytes(nil)); got != "E653341F9D5BF36F" {
			t.Fatal(got)
		}
		if v.KCV().String() != "C33F45" {
			t.Fatal(v.KCV())
		}
	}
}

func TestCRCExamples(t *testing.T) {
	t.Parallel()
	apdu, err := sts.Credit{RND: 5, TID: 12593749, Amount: 10000}.APDU()
	check(t, err)
	if apdu.CRC() != 0x1970 {
		t.Fatalf("CRC %04X", apdu.CRC())
	}
	// the 50 bits 00004A2D900FF2
	apdu, err = sts.Credit{RND: 0, TID: 0x4A2D90, Amount: 0x0FF2}.APDU()
	check(t, err)
	if apdu.CRC() != 0x0FFA {
		t.Fatalf("CRC %04X", apdu.CRC())
	}
}

// TestMeterTestTokens recomputes the published class 1 tokens.
func TestMeterTestTokens(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/meter-test-tokens.json")
	check(t, err)
	var file struct {
		Tokens []struct {
			Test               sts.TestNumber
			TokenDec, TokenHex string
			SubClass           sts.SubClass
			Control            uint64
			MfrCode            uint16
		}
	}
	check(t, json.Unmarshal(data, &file))
	if len(file.Tokens) < 18 {
		t.Fatalf("%d tokens", len(file.Tokens))
	}
	for _, c := range file.Tokens {
		control, err := sts.TestControl(c.SubClass, c.Test)
		check(t, err)
		if control != c.Control {
			t.Errorf("test %d: control %X, want %X", c.Test, control, c.Control)
		}
		want := sts.MeterTest{SubClass: c.SubClass, Control: c.Control, Manufacturer: c.MfrCode}
		token, err := sts.NewEngine(nil, sts.ConstantTime).Encode(sts.DecoderKey{}, want)
		check(t, err)
		if token.String() != c.TokenDec || token.Hex() != c.TokenHex {
			t.Errorf("test %d: token %s %s", c.Test, token, token.Hex())
		}
		read, err := sts.ParseTokenHex(strings.ToLower(c.TokenHex))
		check(t, err)
		got, err := sts.NewEngine(nil, sts.ConstantTime).Decode(sts.DecoderKey{}, read)
		check(t, err)
		if got != want {
			t.Errorf("test %d: decoded %+v", c.Test, got)
		}
	}
}

func TestIDRecordExample(t *testing.T) {
	t.Parallel()
	const sample = "00000260060135803400000207999907012"
	r, err := sts.ParseIDRecord(sample)
	check(t, err)
	want := sts.IDRecord{PAN: mustPAN(t, "000002600601358034"), TCT: 2, EA: 7, SGC: 999907, TI: 1, KRN: 2}
	if r != want || r.String() != sample {
		t.Fatalf("%+v %s", r, r)
	}
	if r.Record2() != ";000002600601358034==0207999907012?" {
		t.Fatal(r.Record2())
	}
}

// TestAmountPoints are the test points of the 16-bit amount.
func TestAmountPoints(t *testing.T) {
	t.Parallel()
	for units, code := range map[uint64]sts.Amount16{0: 0, 1: 1, 16383: 0x3FFF, 16384: 0x4000, 20000: 0x416A, 180214: 0x7FFF, 180223: 0x8000,
		180224: 0x8000, 1818524: 0xBFFF, 1818623: 0xC000, 1818624: 0xC000, 18201624: 0xFFFF} {
		if got, err := sts.EncodeAmount(units); err != nil || got != code {
			t.Errorf("%d: %04X, %v, want %04X", units, uint16(got), err, uint16(code))
		}
	}
	_, err := sts.EncodeAmount(sts.MaxUnits + 1)
	isKind(t, err, sts.ErrRange)
}

// TestCurrencyPoints are the test points of the 20-bit amount, in the base
// currency.
func TestCurrencyPoints(t *testing.T) {
	t.Parallel()
	for amount, code := range map[float64]sts.Amount20{0: 0, 1: 0x060AA, -1: 0x860A9, 16383: 0x178E3, 18202624: 0x23FFF, 1.82044e14: 0x40000, -1.82044e14: 0xBFFFF} {
		c, err := sts.CurrencyOfFloat(amount)
		check(t, err)
		if got, err := sts.EncodeCurrency(c); err != nil || got != code {
			t.Errorf("%v: %05X, %v, want %05X", amount, uint32(got), err, uint32(code))
		}
	}
}

func TestTIDPoints(t *testing.T) {
	t.Parallel()
	for base, last := range map[sts.BaseDate]string{sts.BaseDate1993: "2024-11-24T20:15:00Z", sts.BaseDate2014: "2045-11-24T20:15:00Z", sts.BaseDate2035: "2066-11-24T20:15:00Z"} {
		at, err := time.Parse(time.RFC3339, last)
		check(t, err)
		if got := base.Time(sts.MaxTID); !got.Equal(at) {
			t.Errorf("%v: last TID at %v", base, got)
		}
		for add, want := range map[time.Duration]sts.TID{0: sts.MaxTID, 59 * time.Second: sts.MaxTID, -time.Second: sts.MaxTID - 1} {
			if got, err := base.TID(at.Add(add)); err != nil || got != want {
				t.Errorf("%v%+v: %v, %v", base, add, got, err)
			}
		}
		for _, f := range []func(time.Time) (sts.TID, error){base.TID, base.IssueTID, base.ReservedTID} {
			_, err = f(at.Add(time.Minute))
			isKind(t, err, sts.ErrExpired)
			_, err = f(base.Time(0).Add(-time.Second))
			isKind(t, err, sts.ErrBeforeBaseDate)
		}
	}
	day := time.Date(2026, 3, 1, 0, 0, 30, 0, time.UTC)
	zero, err := sts.BaseDate2014.TID(day)
	check(t, err)
	for minutes, want := range map[int]sts.TID{0: 0, 1: 2, 2: 2, 3: 3} {
		if got, err := sts.BaseDate2014.IssueTID(day.Add(time.Duration(minutes) * time.Minute)); err != nil || got != zero+want {
			t.Errorf("minute %d: %d", minutes, got-zero)
		}
		if got, err := sts.BaseDate2014.ReservedTID(day.Add(time.Duration(minutes) * time.Minute)); err != nil || got != zero+1 || !got.Reserved() {
			t.Errorf("minute %d: reserved %d", minutes, got-zero)
		}
	}
	if zero.Next() != zero+2 || (zero+2).Next() != zero+3 {
		t.Error("Next does not skip the reserved minute only")
	}
	_, err = sts.BaseDate(1999).TID(day)
	isKind(t, err, sts.ErrRange)
}
