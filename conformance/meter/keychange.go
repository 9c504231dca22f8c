package meter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// keyChange holds a section or, when it completes its set, applies the set.
func (m *Meter) keyChange(r Result, s Section, now time.Time) Result {
	if err := s.validate(m.state.EA); err != nil {
		return r.reject(RangeError, "%s", err)
	}
	if s.SubClass == 3 {
		if err := m.keyType(s.KT); err != nil {
			return r.reject(KeyTypeError, "%s", err)
		}
	}
	held := m.held(now)
	i, found := slices.BinarySearchFunc(held, s.SubClass, bySubClass)
	switch {
	case !found:
		held = slices.Insert(held, i, s)
	case held[i] != s:
		held = []Section{s}
	}
	if missing := missing(m.state.EA, held); len(missing) != 0 {
		m.state.Pending = &Pending{Last: now.UTC().Truncate(time.Second), Sections: held}
		r = r.accept()
		r.Code, r.Missing = SectionHeld, missing
		return r
	}
	return m.apply(r, held)
}

func bySubClass(s Section, sub int) int { return cmp.Compare(s.SubClass, sub) }

// held returns a copy of the sections that have not lapsed. A clock that was
// set back does not make them lapse.
func (m *Meter) held(now time.Time) []Section {
	p := m.state.Pending
	if p == nil || now.Sub(p.Last) > SetLifetime {
		return nil
	}
	return slices.Clone(p.Sections)
}

// missing lists the subclasses that held still needs. Without the first section
// an EA07 meter does not know whether the set has a third.
func missing(ea int, held []Section) []int {
	need := []int{3, 4}
	switch {
	case ea == 11:
		need = []int{3, 4, 8, 9}
	case slices.ContainsFunc(held, func(s Section) bool { return s.Three }):
		need = []int{3, 4, 8}
	}
	return slices.DeleteFunc(need, func(sub int) bool {
		_, found := slices.BinarySearchFunc(held, sub, bySubClass)
		return found
	})
}

// validate checks the fields of a section against the meter's algorithm.
func (s Section) validate(ea int) error {
	if len(s.Key) != 8 || strings.Trim(s.Key, "0123456789ABCDEF") != "" {
		return fmt.Errorf("key part %q is not 8 hexadecimal digits", s.Key)
	}
	if s.KENHalf < 0 || s.KENHalf > 15 {
		return fmt.Errorf("half %d of the key expiry number is outside 0 to 15", s.KENHalf)
	}
	switch s.SubClass {
	case 3:
		if s.KRN < 1 || s.KRN > 9 {
			return fmt.Errorf("key revision number %d is outside 1 to 9", s.KRN)
		}
		if s.KT < 0 || s.KT > 3 {
			return fmt.Errorf("key type %d is outside 0 to 3", s.KT)
		}
		if s.Three && ea != 7 {
			return fmt.Errorf("the reserved bit is set")
		}
	case 4:
		if s.TI < 0 || s.TI > 99 {
			return fmt.Errorf("tariff index %d is outside 0 to 99", s.TI)
		}
	case 8:
	case 9:
		if ea != 11 {
			return fmt.Errorf("a set of EA%02d has no fourth section", ea)
		}
	default:
		return fmt.Errorf("subclass %d is no key section", s.SubClass)
	}
	if limit := uint32(0xFFF); ea == 11 && s.SGC > limit {
		return fmt.Errorf("half of the supply group code is %d, above %d", s.SGC, limit)
	}
	if s.SGC > 999999 {
		return fmt.Errorf("supply group code %d has more than six digits", s.SGC)
	}
	return nil
}

// keyType reports why the meter's key may not be followed by one of type kt.
// The standard's table was not available in full: default to default is taken as
// permitted, common to default as not.
func (m *Meter) keyType(kt int) error {
	switch from := m.state.KT; {
	case kt == 0:
		return fmt.Errorf("no key change leads to an initialisation key")
	case kt == 3 && m.state.TCT != 1:
		return fmt.Errorf("a common key needs token carrier type 1, the meter has %d", m.state.TCT)
	case from == 2 && kt == 3, from == 3 && kt != 3:
		return fmt.Errorf("key type %d is not followed by %d", from, kt)
	}
	return nil
}

// apply takes over the key and attributes of a whole set.
func (m *Meter) apply(r Result, set []Section) Result {
	next := m.state.clone()
	next.Pending = nil
	first, second := set[0], set[1]
	next.Key = first.Key + second.Key
	next.KRN, next.KT, next.TI = first.KRN, first.KT, second.TI
	next.KEN = first.KENHalf<<4 | second.KENHalf
	switch {
	case m.state.EA == 11:
		third, fourth := set[2], set[3]
		next.Key = first.Key + third.Key + fourth.Key + second.Key
		sgc := fourth.SGC<<12 | third.SGC
		if sgc > 999999 {
			return m.drop(r).reject(RangeError, "supply group code %d has more than six digits", sgc)
		}
		next.SGC = fmt.Sprintf("%06d", sgc)
	case first.Three:
		next.SGC = fmt.Sprintf("%06d", set[2].SGC)
	}
	if first.Rollover {
		if next.Key == m.state.Key {
			return m.drop(r).reject(FormatError, "a rollover to the key that the meter holds would make used tokens good again")
		}
		next.TIDs = filled(0)
		next.BaseDate = 0
		if m.state.BaseDate == 2014 {
			next.BaseDate = 2035
		}
	}
	next.KeyChanges++
	changed, err := restore(next)
	if err != nil {
		return m.drop(r).reject(FormatError, "the new key cannot be used: %s", err)
	}
	*m = *changed
	r.Text = fmt.Sprintf("new key: SGC %s KRN %d TI %02d KT %d KEN %d rollover %t", next.SGC, next.KRN, next.TI, next.KT, next.KEN, first.Rollover)
	return r.accept()
}

// drop forgets the held sections of a set that can never be applied.
func (m *Meter) drop(r Result) Result {
	m.state.Pending = nil
	return r
}
