package pos

import (
	"fmt"
	"math"
	"strconv"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// Token classes as clients number them.
const (
	classCredit     = 0
	classMeterTest  = 1
	classManagement = 2
)

// maxCurrency is the interface's bound of a currency amount, 16383 × 10^31 steps
// of 0.00001. The field itself reaches a little further.
const maxCurrency = 1.6383e30

// coding says how an amount travels in its token.
type coding uint8

const (
	codedUnits    coding = iota // 16 bits, compressed, rounded up
	codedCurrency               // 20 bits
	codedWatt                   // 16 bits, compressed
	codedPlain                  // a 16-bit number
	codedZero                   // nothing but 0
)

// kind is what is known of one class and subclass.
type kind struct {
	coding      coding
	description string
	unit        string
	scaledUnit  string
}

var creditKinds = [8]kind{
	{codedUnits, "Credit:Electricity", "hWh", "kWh"},
	{codedUnits, "Credit:Water", "hL", "kL"},
	{codedUnits, "Credit:Gas", "0.1 m^3", "m^3"},
	{codedUnits, "Credit:Time", "0.1 min", "min"},
	{codedCurrency, "Credit:CurrencyElec", "currency", "currency"},
	{codedCurrency, "Credit:CurrencyWater", "currency", "currency"},
	{codedCurrency, "Credit:CurrencyGas", "currency", "currency"},
	{codedCurrency, "Credit:CurrencyTime", "currency", "currency"},
}

var managementKinds = [16]kind{
	0:  {codedWatt, "SetMaximumPowerLimit", "Watt", "Watt"},
	1:  {codedPlain, "ClearCredit", "", ""},
	2:  {codedPlain, "SetTariffRate", "", ""},
	3:  {codedZero, "Set1stSectionDecoderKey", "", ""},
	4:  {codedZero, "Set2ndSectionDecoderKey", "", ""},
	5:  {codedZero, "ClearTamperCondition", "", ""},
	6:  {codedWatt, "SetMaxPhaseUnbalanceLmt", "Watt", "Watt"},
	7:  {codedPlain, "SetWaterMeterFactor", "", ""},
	8:  {codedZero, "Set3rdSectionDecoderKey", "", ""},
	9:  {codedZero, "Set4thSectionDecoderKey", "", ""},
	10: {codedPlain, "SetControlElement", "", ""},
	11: {codedPlain, "Proprietary11", "", ""},
	12: {codedPlain, "Proprietary12", "", ""},
	13: {codedPlain, "Proprietary13", "", ""},
	14: {codedPlain, "Proprietary14", "", ""},
	15: {codedPlain, "Proprietary15", "", ""},
}

// isKeyChange reports whether a class 2 subclass is a section of a key-change set.
func isKeyChange(subclass int) bool {
	return subclass == 3 || subclass == 4 || subclass == 8 || subclass == 9
}

// IsProprietary reports whether a class 2 subclass is left to manufacturers.
func IsProprietary(subclass int) bool { return subclass >= 11 && subclass <= 15 }

// kindOf finds the kind of a class 0 or 2 token.
func kindOf(class, subclass int) (kind, error) {
	switch {
	case class == classCredit && subclass >= 0 && subclass < len(creditKinds):
		return creditKinds[subclass], nil
	case class == classCredit:
		return kind{}, outOfRange("subclass", subclass, "0..7")
	case subclass < 0 || subclass > 15 || isKeyChange(subclass):
		return kind{}, outOfRange("subclass", subclass, "0..2, 5..7 or 10..15")
	}
	return managementKinds[subclass], nil
}

// encode turns an amount into the token's field, in the customer's favour.
func (k kind) encode(amount float64) (field uint32, err error) {
	const name = "transferAmount"
	outOfRange := func(name, expected string) error {
		return outOfRange(name, strconv.FormatFloat(amount, 'g', -1, 64), expected)
	}
	switch k.coding {
	case codedUnits, codedWatt:
		units, err := sts.UnitsOfFloat(amount)
		if err != nil {
			return 0, outOfRange(name, "0.."+strconv.Itoa(sts.MaxUnits))
		}
		a, err := sts.EncodeAmount(units)
		if err != nil {
			return 0, outOfRange(name, "0.."+strconv.Itoa(sts.MaxUnits))
		}
		return uint32(a), nil
	case codedCurrency:
		expected := fmt.Sprintf("-%g..%g", maxCurrency, maxCurrency)
		if !(math.Abs(amount) <= maxCurrency) { // also NaN
			return 0, outOfRange(name, expected)
		}
		c, err := sts.CurrencyOfFloat(amount)
		if err != nil {
			return 0, outOfRange(name, expected)
		}
		a, err := sts.EncodeCurrency(c)
		if err != nil {
			return 0, outOfRange(name, expected)
		}
		return uint32(a), nil
	case codedPlain:
		if !(amount >= 0 && amount <= math.MaxUint16) || amount != math.Trunc(amount) {
			return 0, outOfRange(name, "an integer 0..65535")
		}
		return uint32(amount), nil
	default:
		if amount != 0 {
			return 0, outOfRange(name, "0")
		}
		return 0, nil
	}
}

// amounts is what an answer says of a field: the amount really in the token,
// and the same for people.
func (k kind) amounts(field uint32) (amount float64, scaled string) {
	switch k.coding {
	case codedUnits:
		u := sts.Amount16(field).Units()
		return float64(u), strconv.FormatUint(u/10, 10) + "." + strconv.FormatUint(u%10, 10)
	case codedCurrency:
		c := sts.Amount20(field).Currency()
		return c.Float64(), c.String()
	case codedWatt:
		u := sts.Amount16(field).Units()
		return float64(u), strconv.FormatUint(u, 10)
	default:
		return float64(field), strconv.FormatUint(uint64(field), 10)
	}
}
