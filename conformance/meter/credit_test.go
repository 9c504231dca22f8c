package meter_test

import (
	"bytes"
	"math/big"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

func TestCreditIsAddedOnce(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		m := is.meter(t)
		token := is.credit(t, sts.Electricity, 5000, 102)
		r := enter(t, m, token, meter.Accepted)
		if r.Amount != "102" || r.Text != "10.2 kWh" || *r.TID != 5000 {
			t.Errorf("result %+v", r)
		}
		enter(t, m, token, meter.UsedError)
		enter(t, m, is.credit(t, sts.Water, 5001, 20001), meter.Accepted)
		if got := m.State().Credit; got != (meter.Units{Electricity: 102, Water: 20004}) {
			t.Errorf("registers %+v", got)
		}
	})
}

func TestCurrencyCredit(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		m := is.meter(t)
		for i, units := range []int64{1234500, -234500} {
			amount, err := sts.EncodeCurrency(sts.CurrencyUnits(units))
			if err != nil {
				t.Fatal(err)
			}
			enter(t, m, is.token(t, sts.CurrencyCredit{Resource: sts.Gas, TID: sts.TID(9000 + i), Amount: amount}), meter.Accepted)
		}
		sum, _ := new(big.Int).SetString(m.State().Currency.Gas, 10)
		// Both amounts round toward plus infinity, by less than their step of 100.
		if low, high := big.NewInt(1000000), big.NewInt(1000200); sum.Cmp(low) < 0 || sum.Cmp(high) >= 0 {
			t.Errorf("gas currency register %s, want %s or a little more", sum, low)
		}
	})
}

// TestRejections gives one token to a fresh meter, which must answer with the
// code and stay as it was.
func TestRejections(t *testing.T) {
	made := sts.TID(1440) // newIssuer's day of manufacture
	tests := map[string]struct {
		edit  func(*meter.Config)
		token func(t *testing.T, is *issuer) string
		want  meter.Code
	}{
		"one digit changed": {
			token: func(t *testing.T, is *issuer) string {
				p := []byte(is.credit(t, sts.Electricity, 5000, 1))
				p[10] = '0' + (p[10]-'0'+1)%10
				return string(p)
			}, want: meter.CRCError},
		"another meter's key": {
			token: func(t *testing.T, is *issuer) string {
				other := *is
				other.key = testKey(t, is.config.EA, 2, 9)
				return other.credit(t, sts.Electricity, 5000, 1)
			}, want: meter.CRCError},
		"time of manufacture": {
			token: func(t *testing.T, is *issuer) string { return is.credit(t, sts.Electricity, made, 1) },
			want:  meter.UsedError},
		"before manufacture": {
			token: func(t *testing.T, is *issuer) string { return is.credit(t, sts.Electricity, made-1, 1) },
			want:  meter.OldError},
		"key expired": {
			edit:  func(c *meter.Config) { c.KEN = 85 },
			token: func(t *testing.T, is *issuer) string { return is.credit(t, sts.Electricity, 86<<16, 1) },
			want:  meter.KeyExpiredError},
		"management with expired key": {
			edit:  func(c *meter.Config) { c.KEN = 0 },
			token: func(t *testing.T, is *issuer) string { return is.management(t, 5, 1<<16, 0) },
			want:  meter.KeyExpiredError},
		"credit under default key": {
			edit:  func(c *meter.Config) { c.KT = 1 },
			token: func(t *testing.T, is *issuer) string { return is.credit(t, sts.Electricity, 5000, 1) },
			want:  meter.DDTKError},
		"class 0 subclass 8": {
			token: func(t *testing.T, is *issuer) string { return is.raw(t, 0, withCRC(0, 8<<60|5000<<32)) },
			want:  meter.FunctionError},
		"class 2 subclass 11": {
			token: func(t *testing.T, is *issuer) string { return is.management(t, 11, 5000, 0) },
			want:  meter.FunctionError},
		"class 3": {
			token: func(*testing.T, *issuer) string { return "00000000000402653184" }, // class bits only
			want:  meter.FunctionError},
		"register 8": {
			token: func(t *testing.T, is *issuer) string { return is.management(t, sts.ClearCredit, 5000, 8) },
			want:  meter.RangeError},
		"padding": {
			token: func(t *testing.T, is *issuer) string { return is.raw(t, 2, withCRC(2, 5<<60|5000<<32|1<<16)) },
			want:  meter.FormatError},
		"old and expired is expired": {
			edit:  func(c *meter.Config) { c.KEN = 0; c.Manufactured = noon },
			token: func(t *testing.T, is *issuer) string { return is.credit(t, sts.Electricity, 1<<16, 1) },
			want:  meter.KeyExpiredError},
		"test of another manufacturer": {
			token: func(t *testing.T, is *issuer) string {
				return is.token(t, sts.MeterTest{SubClass: 1, Control: 1, Manufacturer: 101})
			}, want: meter.ManufacturerError},
		"proprietary test without manufacturer": {
			token: func(t *testing.T, is *issuer) string { return is.token(t, sts.MeterTest{SubClass: 6, Control: 1}) },
			want:  meter.ManufacturerError},
		"class 1 subclass 3": {
			token: func(t *testing.T, is *issuer) string { return is.raw(t, 1, withCRC(1, 3<<60)) },
			want:  meter.FunctionError},
		"class 1 CRC": {
			token: func(t *testing.T, is *issuer) string { return is.raw(t, 1, 1) },
			want:  meter.CRCError},
		"class 1 manufacturer beyond two digits": {
			token: func(t *testing.T, is *issuer) string { return is.raw(t, 1, withCRC(1, 100<<16)) },
			want:  meter.RangeError},
	}
	both(t, func(t *testing.T, ea int) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				is := newIssuer(t, ea, test.edit)
				m := is.meter(t)
				before := marshal(t, m)
				enter(t, m, test.token(t, is), test.want)
				if !bytes.Equal(before, marshal(t, m)) {
					t.Error("the rejected token changed the meter")
				}
			})
		}
	})
}

// withCRC completes a block whose low 16 bits are zero; subclasses with CRC_C
// are not made here.
func withCRC(class, block uint64) uint64 {
	crc := uint16(0xFFFF)
	input := class<<48 | block>>16
	for shift := 48; shift >= 0; shift -= 8 {
		crc ^= uint16(input >> shift & 0xFF)
		for range 8 {
			if crc&1 == 1 {
				crc = crc>>1 ^ 0xA001
			} else {
				crc >>= 1
			}
		}
	}
	return block | uint64(crc&0xFF)<<8 | uint64(crc>>8)
}

func TestExpiryNumber(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, func(c *meter.Config) { c.KEN = 85 })
		m := is.meter(t)
		enter(t, m, is.credit(t, sts.Electricity, 85<<16|0xFFFF, 1), meter.Accepted)
		enter(t, m, is.credit(t, sts.Electricity, 86<<16, 1), meter.KeyExpiredError)
		never := newIssuer(t, ea, nil)
		enter(t, never.meter(t), never.credit(t, sts.Electricity, sts.MaxTID, 1), meter.Accepted)
	})
}

func TestOverflow(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		s := is.meter(t).State()
		s.Credit.Gas = meter.MaxCredit - 1
		m := reload(t, s)
		enter(t, m, is.credit(t, sts.Gas, 5000, 2), meter.OverflowError)
		enter(t, m, is.credit(t, sts.Gas, 5000, 1), meter.Accepted)
		if got := m.State().Credit.Gas; got != meter.MaxCredit {
			t.Errorf("gas register %d", got)
		}
	})
}

func TestBadDigits(t *testing.T) {
	t.Parallel()
	m := newIssuer(t, 11, nil).meter(t)
	for _, bad := range []string{"", "1234", "123456789012345678901", "1234567890123456789x", "73786976294838206464", "99999999999999999999"} {
		if r, err := m.Enter(bad, noon); err == nil {
			t.Errorf("%q: %s", bad, r)
		}
	}
	grouped := "7378-6976 29483820-6463" // 2^66 - 1
	if _, err := m.Enter(grouped, noon); err != nil {
		t.Errorf("%q: %v", grouped, err)
	}
}
