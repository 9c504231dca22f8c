package pos

import (
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// keyView finds the keys of a supply group in the module, newest base date
// first within a revision; revision 0 finds all.
type keyView func(sgc, krn int) ([]tsm.Attributes, error)

// plan is what a call is going to do about keys.
type plan struct {
	from, to     tsm.Attributes // the same key if nothing changes
	fromTI, toTI int
	change       bool // a key-change set comes first
}

// planKeys merges every reason for a key change into at most one set:
// newConfig, a newer effective revision, and another key expiry number.
func planKeys(m *meter, wanted *Amendment, effective func(tsm.Attributes) bool, keys keyView) (plan, error) {
	own := Amendment{m.SGC, m.KRN, m.TI}
	target := own
	if wanted != nil {
		target = *wanted
	}
	var to tsm.Attributes
	if m.AllowKRNUpdate {
		group, err := keys(target.SGC, 0)
		if err != nil {
			return plan{}, err
		}
		for _, k := range group {
			if k.KRN > target.KRN && effective(k) {
				target.KRN = k.KRN
			}
		}
		to = pick(group, target.KRN)
	} else {
		group, err := keys(target.SGC, target.KRN)
		if err != nil {
			return plan{}, err
		}
		to = pick(group, target.KRN)
	}
	if to.Register == 0 {
		return plan{}, &missingKey{target.SGC, target.KRN}
	}
	p := plan{from: to, to: to, fromTI: own.TI, toTI: target.TI}
	if target.SGC != own.SGC || target.KRN != own.KRN {
		group, err := keys(own.SGC, own.KRN)
		if err != nil {
			return plan{}, err
		}
		if p.from = pick(group, own.KRN); p.from.Register == 0 {
			return plan{}, &missingKey{own.SGC, own.KRN}
		}
	}
	p.change = target != own || m.AllowKENUpdate && m.KEN != p.from.KEN
	return p, nil
}

// pick returns the first key of a revision, or one without register.
func pick(keys []tsm.Attributes, krn int) tsm.Attributes {
	for _, k := range keys {
		if k.KRN == krn {
			return k
		}
	}
	return tsm.Attributes{}
}

// missingKey is a key that the module does not hold; why is for the key store
// to say.
type missingKey struct{ sgc, krn int }

func (*missingKey) Error() string { return "vending key not in the module" }

// effectiveAt tells the keys that a meter may be moved to at now: active, and
// not past any of their ends. A module in test mode ignores IUT.
func effectiveAt(now time.Time, testMode bool) func(tsm.Attributes) bool {
	return func(k tsm.Attributes) bool {
		if now.Before(k.ACT) || !testMode && now.After(k.IUT) {
			return false
		}
		if !k.EXP.IsZero() && !now.Before(k.EXP.AddDate(0, 0, 1)) {
			return false
		}
		tid, err := sts.BaseDate(k.BDT).TID(now)
		return err == nil && !sts.KEN(k.KEN).Expired(tid)
	}
}

// setSize is how many tokens a key-change set of this meter has.
func (m *meter) setSize() int {
	switch {
	case m.EA == int(sts.EA11):
		return 4
	case m.Allow3KCT:
		return 3
	default:
		return 2
	}
}

// sectionSubclass is the subclass of the nth token of a set.
func sectionSubclass(n int) int { return [...]int{3, 4, 8, 9}[n] }
