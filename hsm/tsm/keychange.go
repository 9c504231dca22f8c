package tsm

import (
	"fmt"
	"strconv"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// KeyChange makes a set of key-change tokens: SM?VK.
func (m *Module) KeyChange(tx Tx, in KeyChangeInput) (KeySet, error) {
	v, err := m.begin(CommandVK)
	if err != nil {
		return KeySet{}, err
	}
	for _, r := range []int{in.RegisterOld, in.RegisterNew} {
		if err := m.checkRegister(r); err != nil {
			return KeySet{}, err
		}
	}
	if err := v.meter(in.PAN, in.TIOld, in.EA, in.TCT); err != nil {
		return KeySet{}, err
	}
	if in.TINew < 0 || in.TINew > 99 {
		return KeySet{}, refuse(CodeKeyParam, "new tariff index %d is not 0 to 99", in.TINew)
	}
	from, err := v.vendingKey(tx, in.RegisterOld, in.TIOld)
	if err != nil {
		return KeySet{}, err
	}
	to, err := v.vendingKey(tx, in.RegisterNew, in.TINew)
	if err != nil {
		return KeySet{}, err
	}
	if err := v.mayChange(from.attr, to.attr); err != nil {
		return KeySet{}, err
	}
	if ok := in.EA == 11 && in.NumTokens == 4 || in.EA == 7 && (in.NumTokens == 2 || in.NumTokens == 3); !ok {
		return KeySet{}, refuse(CodeInvalidNumTokens, "a key change of EA%02d cannot have %d tokens; EA07 takes 2 or 3, EA11 takes 4", in.EA, in.NumTokens)
	}
	licence, err := v.licence(tx)
	if err != nil {
		return KeySet{}, err
	}
	set := KeySet{Rollover: from.attr.BDT != to.attr.BDT, Old: from.attr, New: to.attr}
	tokens, err := m.engine.Load().KeyChangeTokens(from.decoder, sts.KeyChange{
		Key: to.decoder, KRN: sts.KRN(to.attr.KRN), TI: sts.TI(in.TINew), KEN: sts.KEN(to.attr.KEN),
		SGC: sts.SGC(to.attr.SGC), Rollover: set.Rollover,
	}, in.NumTokens)
	if err != nil {
		return KeySet{}, fmt.Errorf("make the key-change tokens: %w", err)
	}
	all := ""
	for _, t := range tokens {
		i := to.issued(t)
		all += i.Dec
		set.Tokens = append(set.Tokens, i)
	}
	if err := v.commit(tx, &to, licence); err != nil {
		return KeySet{}, err
	}
	return set, v.record(tx, in.Request, "token.keychange", in.PAN, &from, Issued{Dec: all},
		[2]string{"newRegister", strconv.Itoa(to.register)}, [2]string{"newSgc", fmt.Sprintf("%06d", to.attr.SGC)},
		[2]string{"newKrn", strconv.Itoa(to.attr.KRN)}, [2]string{"tokens", strconv.Itoa(in.NumTokens)})
}

// mayChange checks the rules of a key change, in the documented order.
func (v *vend) mayChange(from, to Attributes) error {
	if err := v.active(to); err != nil {
		return err
	}
	for _, a := range []Attributes{from, to} {
		if err := v.issued(a); err != nil {
			return err
		}
	}
	not := func(format string, args ...any) error { return refuse(CodeKeyChangeNotAllowed, format, args...) }
	switch {
	case from.CLU != to.CLU:
		return not("the keys are in different clusters (%d and %d)", from.CLU, to.CLU)
	case to.BDT < from.BDT:
		return not("the new key's base date %d is earlier than the old key's, %d", to.BDT, from.BDT)
	case !sts.PermitsKeyChange(sts.KeyType(from.KTC), sts.KeyType(to.KTC)):
		return not("a meter cannot change from a %s to a %s key", from.KTC, to.KTC)
	case v.beyondKEN(from) && v.beyondKEN(to):
		// An expired key may be changed away from, but not to another expired one.
		return not("both keys have expired")
	}
	return nil
}

// beyondKEN reports whether a key has expired now, by expiry number or date.
func (v *vend) beyondKEN(a Attributes) bool {
	if expired(a, v.now) {
		return true
	}
	tid, err := sts.BaseDate(a.BDT).TID(v.now)
	if err != nil { // the 24 bits are used up, or the base date lies ahead
		return v.now.After(sts.BaseDate(a.BDT).Time(0)) && a.KEN != 255
	}
	return sts.KEN(a.KEN).Expired(tid)
}
