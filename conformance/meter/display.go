package meter

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// test answers a class 1 token, which is for every meter: it shows what the
// control field asks for and changes nothing.
func (m *Meter) test(r Result, t token) Result {
	r.Amount = fmt.Sprintf("%X", t.control)
	r.Text = fmt.Sprintf("control %s, manufacturer %d", r.Amount, t.manufacturer)
	if t.subclass >= 3 && t.subclass <= 5 {
		return r.reject(FunctionError, "class 1 subclass %d is reserved", t.subclass)
	}
	if own := m.manufacturer(); t.manufacturer != own && (t.manufacturer != 0 || t.subclass > 5) {
		return r.reject(ManufacturerError, "the token is for meters of manufacturer %d, this one is of %d", t.manufacturer, own)
	}
	switch t.subclass {
	case 0:
		r.Display = m.tests(t.control, 36)
	case 1:
		r.Display = m.tests(t.control, 28)
	case 2:
		r.Display = []Line{m.extended(t.control)}
	}
	return r.accept()
}

// manufacturer is the code in the meter's own number.
func (m *Meter) manufacturer() uint16 {
	length := 2
	if len(m.state.DRN) == 13 {
		length = 4
	}
	code, _ := strconv.ParseUint(m.state.DRN[:length], 10, 16) // digits, checked by parsePAN
	return uint16(code)
}

// tests returns what the tests selected by control show; all ones select test 0,
// which is every test.
func (m *Meter) tests(control uint64, width int) []Line {
	show := m.display()
	all := control == 1<<width-1
	var lines []Line
	for i := range width {
		if control>>i&1 == 0 {
			continue
		}
		switch {
		case i < len(show):
			lines = append(lines, show[i])
		case !all:
			lines = append(lines, Line{Test: i + 1, Name: "test", Value: "not supported"})
		}
	}
	return lines
}

// display is the content of every test, in the order of the control bits.
func (m *Meter) display() []Line {
	s := &m.state
	ea := fmt.Sprintf("%02d", s.EA)
	sets := map[int]string{7: "2 or 3", 11: "4"}
	return []Line{
		{1, "load switch", "closed"},
		{2, "display", "88888888"},
		{3, "totals", m.totals()},
		{4, "KRN", fmt.Sprint(s.KRN)},
		{5, "TI", fmt.Sprintf("%02d", s.TI)},
		{6, "token reader", "keypad"},
		{7, "maximum power limit", optional(s.MaximumPowerLimit, " W")},
		{8, "tamper", map[bool]string{true: "tampered", false: "clear"}[s.Tamper]},
		{9, "power", "0 W"},
		{10, "software", StateFormat},
		{11, "phase unbalance limit", optional(s.PhaseUnbalanceLimit, " W")},
		{12, "water meter factor", optional(s.WaterFactor, "")},
		{13, "tariff rate", optional(s.TariffRate, "")},
		{14, "EA", ea},
		{15, "key-change tokens", sets[s.EA]},
		{16, "SGC", s.SGC},
		{17, "KEN", fmt.Sprint(s.KEN)},
		{18, "DRN", s.DRN},
	}
}

func (m *Meter) totals() string {
	var parts []string
	for i, resource := range []string{"electricity", "water", "gas", "time"} {
		if units := *m.state.Credit.register(uint8(i)); units != 0 {
			parts = append(parts, resource+" "+UnitsText(uint8(i), units))
		}
		if text := *m.state.Currency.register(uint8(i)); text != "0" {
			n, _ := new(big.Int).SetString(text, 10) // validated when the state was read
			parts = append(parts, resource+" "+CurrencyText(n))
		}
	}
	if parts == nil {
		return "0"
	}
	return strings.Join(parts, ", ")
}

func optional[T uint16 | uint32](v *T, unit string) string {
	if v == nil {
		return "not set"
	}
	return fmt.Sprint(*v) + unit
}

// extended answers an extended token read: the index in the top 6 of 36 bits;
// index 63 is a flag, whose number is taken from the next 9 bits (only number 0
// is confirmed by a published token).
func (m *Meter) extended(control uint64) Line {
	index := int(control >> 30)
	if index == flagIndex {
		flag := int(control >> 21 & maxFlag)
		value, ok := m.state.Flags[flag]
		return Line{Name: fmt.Sprintf("flag %d", flag), Value: known(value, ok)}
	}
	value, ok := m.state.Controls[index]
	return Line{Name: fmt.Sprintf("register %d", index), Value: known(value, ok)}
}

func known(v any, ok bool) string {
	if !ok {
		return "not set"
	}
	return fmt.Sprint(v)
}

// Field is one line of a meter's overview.
type Field struct{ Name, Value string }

// Overview is the meter's state for people, without its key.
func (m *Meter) Overview() []Field {
	s := &m.state
	base := fmt.Sprint(s.BaseDate)
	if s.BaseDate == 0 {
		base = "unknown since a rollover"
	}
	kind := [...]string{"initialisation", "default", "unique", "common"}[s.KT]
	fields := []Field{
		{"DRN", s.DRN}, {"PAN", s.PAN}, {"EA", fmt.Sprintf("%02d", s.EA)}, {"TCT", fmt.Sprintf("%02d", s.TCT)},
		{"SGC", s.SGC}, {"KRN", fmt.Sprint(s.KRN)}, {"TI", fmt.Sprintf("%02d", s.TI)},
		{"KT", fmt.Sprintf("%d (%s)", s.KT, kind)}, {"KEN", fmt.Sprint(s.KEN)}, {"Base date", base},
		{"Key check value", m.KeyCheckValue()}, {"Key changes", fmt.Sprint(s.KeyChanges)},
	}
	for i, resource := range []string{"Electricity", "Water", "Gas", "Time"} {
		fields = append(fields, Field{resource, UnitsText(uint8(i), *s.Credit.register(uint8(i)))})
	}
	for i, resource := range []string{"Electricity", "Water", "Gas", "Time"} {
		if text := *s.Currency.register(uint8(i)); text != "0" {
			n, _ := new(big.Int).SetString(text, 10) // validated when the state was read
			fields = append(fields, Field{resource + " currency", CurrencyText(n)})
		}
	}
	for _, l := range m.display() {
		if slices.Contains([]int{7, 8, 11, 12, 13}, l.Test) {
			fields = append(fields, Field{strings.ToUpper(l.Name[:1]) + l.Name[1:], l.Value})
		}
	}
	for _, i := range sortedKeys(s.Flags) {
		fields = append(fields, Field{fmt.Sprintf("Flag %d", i), fmt.Sprint(s.Flags[i])})
	}
	for _, i := range sortedKeys(s.Controls) {
		fields = append(fields, Field{fmt.Sprintf("Register %d", i), fmt.Sprint(s.Controls[i])})
	}
	newest := s.TIDs[MemorySize-1]
	fields = append(fields, Field{"Newest TID", fmt.Sprint(newest)}, Field{"Oldest TID", fmt.Sprint(s.TIDs[0])})
	if s.Pending != nil {
		fields = append(fields, Field{"Key change", "still needs " + subclasses(missing(s.EA, s.Pending.Sections))})
	}
	return fields
}

func sortedKeys[V any](m map[int]V) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Balance is the register that an accepted credit token changed.
func (m *Meter) Balance(r Result) (string, bool) {
	if !r.Accepted || *r.Class != 0 {
		return "", false
	}
	if sub := *r.SubClass; sub < 4 {
		return UnitsText(sub, *m.state.Credit.register(sub)), true
	}
	n, _ := new(big.Int).SetString(*m.state.Currency.register(*r.SubClass), 10) // validated when the state was read
	return CurrencyText(n), true
}
