package sts_test

import (
	"errors"
	"testing"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

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
