package vectors

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// content builds the message of a vector of class 0 or 2, comparing tid and
// amounts on the way.
func content(c Case, class uint64) (sts.Message, error) {
	sub, err := needed("subclass", c.SubClass, 15)
	if err != nil {
		return nil, err
	}
	tid, err := c.identifier()
	if err != nil {
		return nil, err
	}
	if class == 0 && sub >= 4 {
		amount, err := c.currency()
		return sts.CurrencyCredit{Resource: sts.Resource(sub - 4), TID: tid, Amount: amount}, err
	}
	rnd, err := needed("rnd", c.RND, 15)
	if err != nil {
		return nil, err
	}
	switch {
	case class == 0:
		amount, err := c.amount("amount", c.Amount)
		return sts.Credit{Resource: sts.Resource(sub), RND: uint8(rnd), TID: tid, Amount: amount}, err
	case class == 2 && (sub == 0 || sub == 6):
		amount, err := c.amount("watts", c.Watts)
		return sts.Management{SubClass: sts.SubClass(sub), RND: uint8(rnd), TID: tid, Value: uint16(amount)}, err
	case class == 2:
		value, err := needed("value", c.Value, 1<<16-1)
		return sts.Management{SubClass: sts.SubClass(sub), RND: uint8(rnd), TID: tid, Value: uint16(value)}, err
	}
	return nil, cannot("class", fmt.Errorf("%d is reserved", class))
}

// identifier computes the TID from the time. The reserved minute 00:01 is what a
// special token takes; any other token takes the minute after.
func (c Case) identifier() (sts.TID, error) {
	if c.Time == "" {
		tid, err := needed("tid", c.TID, uint64(sts.MaxTID))
		return sts.TID(tid), err
	}
	at, err := time.Parse(time.RFC3339, c.Time)
	if err != nil {
		return 0, cannot("time", err)
	}
	year, err := needed("baseDate", c.BaseDate, 9999)
	if err != nil {
		return 0, err
	}
	tid, err := sts.BaseDate(year).IssueTID(at)
	if err != nil {
		return 0, cannot("tid", err)
	}
	if c.TID == nil {
		return tid, nil
	}
	if exact, err := sts.BaseDate(year).TID(at); err == nil && exact.Reserved() && string(*c.TID) == fmt.Sprint(exact) {
		return exact, nil
	}
	return tid, check("tid", string(*c.TID), fmt.Sprint(tid))
}

func (c Case) amount(field string, n *Number) (sts.Amount16, error) {
	units, err := needed(field, n, 1<<63)
	if err != nil {
		return 0, err
	}
	amount, err := sts.EncodeAmount(units)
	if err != nil {
		return 0, cannot("encodedAmount", err)
	}
	if err := check("encodedAmount", upper(c.EncodedAmount), fmt.Sprintf("%04X", uint16(amount))); err != nil {
		return 0, err
	}
	return amount, check("issuedAmount", c.IssuedAmount.text(), fmt.Sprint(amount.Units()))
}

func (c Case) currency() (sts.Amount20, error) {
	if c.CurrencyUnits == nil {
		return 0, cannot("currencyUnits", fmt.Errorf("missing"))
	}
	units, err := sts.ParseCurrencyUnits(string(*c.CurrencyUnits))
	if err != nil {
		return 0, cannot("currencyUnits", err)
	}
	amount, err := sts.EncodeCurrency(units)
	if err != nil {
		return 0, cannot("encodedAmount", err)
	}
	if err := check("encodedAmount", upper(c.EncodedAmount), fmt.Sprintf("%05X", uint32(amount))); err != nil {
		return 0, err
	}
	return amount, check("issuedUnits", c.IssuedUnits.text(), amount.Currency().Units())
}

// derive computes a decoder key and compares it. Without a vending key the
// decoder key itself is the input.
func (k Key) derive(step string, c Case) (key sts.DecoderKey, base sts.BaseDate, err error) {
	ea, err := needed("ea", c.EA, 99)
	if err != nil {
		return key, 0, err
	}
	kt, err := needed("kt", k.KT, 3)
	if err != nil {
		return key, 0, err
	}
	if k.BaseDate != nil {
		year, err := needed("baseDate", k.BaseDate, 9999)
		if err != nil {
			return key, 0, err
		}
		base = sts.BaseDate(year)
	}
	if k.VendingKey == "" {
		raw, err := hex.DecodeString(k.DecoderKey)
		if err != nil || len(raw) == 0 {
			return key, 0, cannot(step, fmt.Errorf("neither it nor vendingKey is given in hexadecimal"))
		}
		key, err = sts.NewDecoderKey(sts.EA(ea), sts.KeyType(kt), raw)
		if err != nil {
			return key, 0, cannot(step, err)
		}
		return key, base, nil
	}
	key, err = k.fromVendingKey(c, sts.EA(ea), sts.KeyType(kt), base)
	if err != nil {
		return key, 0, cannot(step, err)
	}
	return key, base, check(step, upper(k.DecoderKey), keyText(key))
}

func (k Key) fromVendingKey(c Case, ea sts.EA, kt sts.KeyType, base sts.BaseDate) (sts.DecoderKey, error) {
	raw, err := hex.DecodeString(k.VendingKey)
	if err != nil {
		return sts.DecoderKey{}, fmt.Errorf("vendingKey is not hexadecimal")
	}
	pan, err := sts.ParsePAN(c.PAN)
	if err != nil {
		return sts.DecoderKey{}, fmt.Errorf("pan: %w", err)
	}
	var dkga, sgc, krn, ti uint64
	for _, f := range []struct {
		name  string
		from  *Number
		limit uint64
		to    *uint64
	}{{"dkga", k.DKGA, 99, &dkga}, {"sgc", k.SGC, 999999, &sgc}, {"krn", k.KRN, 9, &krn}, {"ti", k.TI, 99, &ti}} {
		if *f.to, err = needed(f.name, f.from, f.limit); err != nil {
			return sts.DecoderKey{}, err
		}
	}
	vk, err := sts.NewVendingKey(sts.DKGA(dkga), raw)
	if err != nil {
		return sts.DecoderKey{}, err
	}
	return vk.DecoderKey(sts.KeyParams{PAN: pan, EA: ea, KT: kt, SGC: sts.SGC(sgc), KRN: sts.KRN(krn), TI: sts.TI(ti), BaseDate: base})
}

// change is the content of a key-change set.
func (k NewKey) change(key sts.DecoderKey, from, to sts.BaseDate) (sts.KeyChange, error) {
	c := sts.KeyChange{Key: key}
	krn, err := needed("new.krn", k.KRN, 9)
	if err != nil {
		return c, err
	}
	ti, err := needed("new.ti", k.TI, 99)
	if err != nil {
		return c, err
	}
	ken, err := needed("new.ken", k.KEN, 255)
	if err != nil {
		return c, err
	}
	sgc, err := needed("new.sgc", k.SGC, 999999)
	if err != nil {
		return c, err
	}
	c.KRN, c.TI, c.KEN, c.SGC = sts.KRN(krn), sts.TI(ti), sts.KEN(ken), sts.SGC(sgc)
	if from == 0 || to == 0 {
		c.Rollover = k.Rollover != nil && *k.Rollover
		return c, nil
	}
	c.Rollover = sts.Rollover(from, to)
	if k.Rollover == nil {
		return c, nil
	}
	return c, check("new.rollover", fmt.Sprint(*k.Rollover), fmt.Sprint(c.Rollover))
}

// sections returns the section numbers in the order of the tokens.
func (c Case) sections() ([]int, error) {
	order := make([]int, len(c.SubClasses))
	for i, sub := range c.SubClasses {
		number, ok := map[Number]int{"3": 1, "4": 2, "8": 3, "9": 4}[sub]
		if !ok {
			return nil, cannot("subclasses", fmt.Errorf("%s is no key section", sub))
		}
		order[i] = number
	}
	if len(order) == 0 {
		for i := range c.Tokens {
			order = append(order, i+1)
		}
	}
	switch {
	case len(order) != len(c.Tokens):
		return nil, cannot("tokens", fmt.Errorf("%d tokens for %d subclasses", len(c.Tokens), len(order)))
	case len(c.Blocks) != 0 && len(c.Blocks) != len(order):
		return nil, cannot("blocks", fmt.Errorf("%d blocks for %d subclasses", len(c.Blocks), len(order)))
	}
	return order, nil
}

// needed reads a number that the vector must have.
func needed(field string, n *Number, limit uint64) (uint64, error) {
	if n == nil {
		return 0, cannot(field, fmt.Errorf("missing"))
	}
	v, err := n.Uint(limit)
	if err != nil {
		return 0, cannot(field, err)
	}
	return v, nil
}

func (n *Number) text() string {
	if n == nil {
		return ""
	}
	return string(*n)
}

func keyText(k sts.DecoderKey) string { return upper(hex.EncodeToString(k.AppendBytes(nil))) }

func hex64(v uint64) string { return fmt.Sprintf("%016X", v) }

func upper(s string) string { return strings.ToUpper(s) }
