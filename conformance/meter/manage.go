package meter

import (
	"fmt"
	"strconv"
)

// allRegisters is the ClearCredit value that empties every register.
const allRegisters = 0xFFFF

// manage applies a class 2 token other than a key-change section.
func (m *Meter) manage(r Result, t token) Result {
	if t.subclass > 10 {
		return r.reject(FunctionError, "class 2 subclass %d is proprietary; this meter has no manufacturer's functions", t.subclass)
	}
	r, ok := m.identified(r, t.tid)
	if !ok {
		return r
	}
	r.Amount = strconv.FormatUint(uint64(t.value), 10)
	r.Text = r.Amount
	switch t.subclass {
	case 0:
		r.Amount, r.Text = watts(t.units)
		m.state.MaximumPowerLimit = &t.units
	case 1:
		if t.value > 7 && t.value != allRegisters {
			return r.reject(RangeError, "there is no credit register %d", t.value)
		}
		r.Text = "register " + r.Amount
		m.clear(t.value)
	case 2:
		m.state.TariffRate = &t.value
	case 5:
		if t.value != 0 {
			return r.reject(FormatError, "the padding is %04X, not 0", t.value)
		}
		r.Amount, r.Text = "", ""
		m.state.Tamper = false
	case 6:
		r.Amount, r.Text = watts(t.units)
		m.state.PhaseUnbalanceLimit = &t.units
	case 7:
		m.state.WaterFactor = &t.value
	case 10:
		r.Text = m.control(t.value)
	}
	m.remember(t.tid)
	return r.accept()
}

func watts(w uint32) (amount, text string) {
	amount = strconv.FormatUint(uint64(w), 10)
	return amount, amount + " W"
}

func (m *Meter) clear(register uint16) {
	for i := range uint8(4) {
		if register == allRegisters || register == uint16(i) {
			*m.state.Credit.register(i) = 0
		}
		if register == allRegisters || register == uint16(i)+4 {
			*m.state.Currency.register(i) = "0"
		}
	}
}

// control writes a flag (index 63, then 9 bits of flag number and its value) or
// a control register (index, then 10 bits).
func (m *Meter) control(value uint16) string {
	index, low := int(value>>10), value&maxControl
	if index == flagIndex {
		if m.state.Flags == nil {
			m.state.Flags = map[int]bool{}
		}
		flag, on := int(low>>1), low&1 == 1
		m.state.Flags[flag] = on
		return fmt.Sprintf("flag %d = %t", flag, on)
	}
	if m.state.Controls == nil {
		m.state.Controls = map[int]uint16{}
	}
	m.state.Controls[index] = low
	return fmt.Sprintf("register %d = %d", index, low)
}
