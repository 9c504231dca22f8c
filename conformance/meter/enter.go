package meter

import (
	"fmt"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	maxTID     = 1<<24 - 1
	neverKEN   = 255
	tokenTime  = time.Minute
	maxFlag    = 1<<9 - 1
	flagIndex  = 63
	maxControl = 1<<10 - 1
)

// SetLifetime is how long key-change sections are held after the last one.
const SetLifetime = time.Hour

// Meter is one virtual meter. It is not safe for concurrent use.
type Meter struct {
	state   State
	decoder decoder
}

func restore(s State) (*Meter, error) {
	d, err := newDecoder(s)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "meter: %w", err)
	}
	return &Meter{state: s, decoder: d}, nil
}

// State returns a copy of what the meter remembers.
func (m *Meter) State() State { return m.state.clone() }

// SetTamper sets the tamper flag, as opening the meter's cover does.
func (m *Meter) SetTamper() { m.state.Tamper = true }

// Digits returns the twenty digits of a token that may be grouped with spaces
// and dashes.
func Digits(token string) (string, error) {
	d := strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' {
			return -1
		}
		return r
	}, token)
	if len(d) != 20 || !digits(d) {
		return "", errkind.Errorf(errkind.Invalid, "token %q is not twenty decimal digits", token)
	}
	return d, nil
}

// Enter gives the meter a token at time now and returns its answer. The error is
// for what no meter's keypad would take: other than twenty digits, or a number
// of 2^66 or more. now matters only to the lifetime of held key-change sections.
func (m *Meter) Enter(token string, now time.Time) (Result, error) {
	number, err := Digits(token)
	if err != nil {
		return Result{}, err
	}
	t, ok, err := m.decoder.decode(number)
	if err != nil {
		return Result{}, errkind.Errorf(errkind.Invalid, "token %s: %w", group(number), err)
	}
	r := Result{Token: number, Class: &t.class}
	if !ok {
		return r.reject(CRCError, "the checksum is wrong: mistyped, for another meter, or not under the current key"), nil
	}
	if t.class == 3 {
		return r.reject(FunctionError, "class 3 is reserved"), nil
	}
	r.SubClass, r.Name = &t.subclass, name(t.class, t.subclass)
	if t.fault != nil && implemented(t.class, t.subclass) {
		return r.reject(RangeError, "%s", t.fault), nil
	}
	switch t.class {
	case 0:
		return m.credit(r, t), nil
	case 1:
		return m.test(r, t), nil
	case 2:
		switch t.subclass {
		case 3, 4, 8, 9:
			return m.keyChange(r, t.section, now), nil
		}
	}
	return m.manage(r, t), nil
}

// implemented says whether the meter knows the subclass at all; the subclasses
// that it does not are refused by the rules of their class.
func implemented(class, subclass uint8) bool {
	switch class {
	case 0:
		return subclass < 8
	case 1:
		return subclass < 3 || subclass > 5
	}
	return subclass <= 10
}

// identified adds the TID to r and says whether the key's expiry and the memory
// let it pass.
func (m *Meter) identified(r Result, tid uint32) (Result, bool) {
	r.TID = &tid
	if base, ok := baseTime(m.state.BaseDate); ok {
		at := base.Add(time.Duration(tid) * tokenTime)
		r.Issued = &at
	}
	memory := memory(m.state.TIDs)
	switch {
	case m.state.KEN != neverKEN && int(tid>>16) > m.state.KEN:
		return r.reject(KeyExpiredError, "TID %d is beyond key expiry number %d", tid, m.state.KEN), false
	case memory.old(tid):
		return r.reject(OldError, "TID %d is older than %d, the oldest that the meter remembers", tid, memory[0]), false
	case memory.used(tid):
		return r.reject(UsedError, "a token with TID %d was accepted before", tid), false
	}
	return r, true
}

func (m *Meter) remember(tid uint32) {
	m.state.TIDs = memory(m.state.TIDs).with(tid)
}

func name(class, subclass uint8) string {
	resource := [...]string{"electricity", "water", "gas", "time"}[subclass&3]
	switch class {
	case 0:
		if subclass < 4 {
			return "credit of " + resource
		}
		if subclass < 8 {
			return "currency credit of " + resource
		}
	case 1:
		switch {
		case subclass < 2:
			return "meter test"
		case subclass == 2:
			return "extended token read"
		case subclass > 5:
			return "manufacturer's test"
		}
	case 2:
		if n, ok := managementNames()[subclass]; ok {
			return n
		}
	}
	return fmt.Sprintf("class %d subclass %d", class, subclass)
}

func managementNames() map[uint8]string {
	return map[uint8]string{
		0: "maximum power limit", 1: "clear credit", 2: "tariff rate",
		3: "first key section", 4: "second key section", 5: "clear tamper condition",
		6: "phase unbalance limit", 7: "water meter factor",
		8: "third key section", 9: "fourth key section", 10: "extended token write",
		11: "proprietary", 12: "proprietary", 13: "proprietary", 14: "proprietary", 15: "proprietary",
	}
}
