package meter_test

import (
	"bytes"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// FuzzEnter: no input makes the meter fail, grow a register without accepting,
// or reach a state that its own file format refuses.
func FuzzEnter(f *testing.F) {
	for _, ea := range []int{7, 11} {
		is := newIssuer(f, ea, nil)
		f.Add(ea == 7, is.credit(f, sts.Electricity, 5000, 102), is.management(f, 10, 5001, 0xFC01))
		set := is.change(f, newKey(f, ea, 2), map[int]int{7: 3, 11: 4}[ea])
		f.Add(ea == 7, set[0], set[1])
		f.Add(ea == 7, "5649 3153 7254 5031 3471", "73786976294838206464")
	}
	f.Fuzz(func(t *testing.T, sta bool, first, second string) {
		ea := 11
		if sta {
			ea = 7
		}
		m := newIssuer(t, ea, nil).meter(t)
		for _, token := range []string{first, second} {
			before := marshal(t, m)
			r, err := m.Enter(token, noon)
			after := marshal(t, m)
			if (err != nil || !r.Accepted) && !bytes.Equal(before, after) {
				t.Fatalf("%q: rejected with %v %s, but the meter changed", token, err, r)
			}
			if _, err := meter.ParseState(after); err != nil {
				t.Fatalf("%q led to a bad state: %v", token, err)
			}
			_ = m.Overview()
		}
	})
}

// FuzzParseState: what is accepted is exactly what the meter writes.
func FuzzParseState(f *testing.F) {
	f.Add(marshal(f, newIssuer(f, 7, nil).meter(f)))
	f.Add(marshal(f, newIssuer(f, 11, nil).meter(f)))
	f.Add([]byte(`{"format":"tesserae-meter/1"}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := meter.ParseState(p)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil || !bytes.Equal(p, again) {
			t.Fatalf("accepted but not canonical: %v", err)
		}
	})
}
