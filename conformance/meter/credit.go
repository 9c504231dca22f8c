package meter

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// MaxCredit is the largest content of a credit register, in units.
const MaxCredit = 1_000_000_000_000

// maxCurrency is the largest magnitude of a currency register, in 0.00001 of
// the base currency; one token can carry 1.6e35.
func maxCurrency() *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil) }

// credit applies a class 0 token.
func (m *Meter) credit(r Result, t token) Result {
	if t.subclass > 7 {
		return r.reject(FunctionError, "class 0 subclass %d is reserved", t.subclass)
	}
	if m.state.KT == 1 {
		return r.reject(DDTKError, "the meter holds a default key, under which there is no credit")
	}
	r, ok := m.identified(r, t.tid)
	if !ok {
		return r
	}
	if t.subclass < 4 {
		r, ok = m.addUnits(r, t.subclass, t.units)
	} else {
		r, ok = m.addCurrency(r, t.subclass, t.currency)
	}
	if !ok {
		return r
	}
	m.remember(t.tid)
	return r.accept()
}

func (m *Meter) addUnits(r Result, resource uint8, units uint32) (Result, bool) {
	r.Amount, r.Text = strconv.FormatUint(uint64(units), 10), UnitsText(resource, uint64(units))
	register := m.state.Credit.register(resource)
	if *register+uint64(units) > MaxCredit {
		return r.reject(OverflowError, "the register holds %s and no more than %s", UnitsText(resource, *register), UnitsText(resource, MaxCredit)), false
	}
	*register += uint64(units)
	return r, true
}

func (m *Meter) addCurrency(r Result, resource uint8, amount *big.Int) (Result, bool) {
	r.Amount, r.Text = amount.String(), CurrencyText(amount)
	register := m.state.Currency.register(resource)
	sum, _ := new(big.Int).SetString(*register, 10) // validated when the state was read
	sum.Add(sum, amount)
	if sum.CmpAbs(maxCurrency()) > 0 {
		return r.reject(OverflowError, "the currency register cannot hold %s", CurrencyText(sum)), false
	}
	*register = sum.String()
	return r, true
}

// UnitsText is a credit register's content for people: tenths of kWh, m3 or min.
// resource is 0 electricity, 1 water, 2 gas, 3 time.
func UnitsText(resource uint8, units uint64) string {
	unit := [...]string{"kWh", "m3", "m3", "min"}[resource&3]
	return fmt.Sprintf("%d.%d %s", units/10, units%10, unit)
}

// CurrencyText is an amount in hundred-thousandths as a decimal number.
func CurrencyText(amount *big.Int) string {
	text := new(big.Int).Abs(amount).String()
	if len(text) < 6 {
		text = strings.Repeat("0", 6-len(text)) + text
	}
	sign := ""
	if amount.Sign() < 0 {
		sign = "-"
	}
	return sign + text[:len(text)-5] + "." + text[len(text)-5:]
}
