package meter_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// TestNoTokenTwice enters credit in any order, with repetitions and with key
// changes between, and checks the register against its own account.
func TestNoTokenTwice(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		rapid.Check(t, func(t *rapid.T) {
			is := newIssuer(t, ea, nil)
			m := is.meter(t)
			keys := byte(1)
			accepted := map[string]bool{}
			var issued []sold
			total := uint64(0)
			t.Repeat(map[string]func(*rapid.T){
				"new token": func(t *rapid.T) {
					// Few TIDs and many steps, so that the memory of 50 runs over.
					tid := sts.TID(rapid.IntRange(1400, 1700).Draw(t, "tid"))
					units := rapid.Uint64Range(0, sts.MaxUnits).Draw(t, "units")
					issued = append(issued, sold{token: is.credit(t, sts.Electricity, tid, units), tid: uint32(tid), key: hexKey(is.key)})
					total += take(t, m, issued[len(issued)-1], accepted)
				},
				"old token": func(t *rapid.T) {
					if len(issued) > 0 {
						total += take(t, m, rapid.SampledFrom(issued).Draw(t, "token"), accepted)
					}
				},
				"key change": func(t *rapid.T) {
					if keys == 200 {
						return
					}
					keys++
					change := newKey(t, ea, keys)
					change.KEN, change.Rollover = 255, rapid.Bool().Draw(t, "rollover")
					tokens := is.change(t, change, map[int]int{7: 2, 11: 4}[ea])
					for _, token := range rapid.Permutation(tokens).Draw(t, "order") {
						if r, err := m.Enter(token, noon); err != nil || !r.Accepted {
							t.Fatalf("key change: %s %v", r, err)
						}
					}
					is.key = change.Key
					if s := m.State(); s.Key != hexKey(change.Key) || change.Rollover && s.TIDs[meter.MemorySize-1] != 0 {
						t.Fatalf("after the key change: %+v", s)
					}
				},
				"": func(t *rapid.T) {
					if got := m.State().Credit; got != (meter.Units{Electricity: total}) {
						t.Fatalf("registers %+v, accepted %d units", got, total)
					}
				},
			})
		})
	})
}

// sold is a token and the key that it was issued under.
type sold struct {
	token string
	tid   uint32
	key   string
}

// take enters a token and returns the units that the register must have grown by.
// Under another key than its own, one token in 65536 fits the checksum and is a
// wholly different one: such a run proves nothing and does not count.
func take(t *rapid.T, m *meter.Meter, s sold, accepted map[string]bool) uint64 {
	before := m.State().Credit.Electricity
	r, err := m.Enter(s.token, noon)
	if err != nil {
		t.Fatal(err)
	}
	grown := m.State().Credit.Electricity - before
	switch {
	case !r.Accepted && r.Code != meter.SectionHeld:
		return 0
	case m.State().Key != s.key && (r.TID == nil || *r.TID != s.tid):
		t.SkipNow()
	case m.State().Key != s.key:
		t.Fatalf("%s was accepted after the key had changed", s.token)
	case accepted[s.token]:
		t.Fatalf("%s was accepted twice", s.token)
	}
	accepted[s.token] = true
	if units := rapidUnits(t, r.Amount); units != grown {
		t.Fatalf("%s: the register grew by %d", r, grown)
	}
	return grown
}

func rapidUnits(t *rapid.T, amount string) (n uint64) {
	for _, d := range amount {
		n = n*10 + uint64(d-'0')
	}
	return n
}

// TestMemoryAgainstModel compares used and old with a plain account of the
// fifty newest TIDs.
func TestMemoryAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		is := newIssuer(t, 11, nil)
		m := is.meter(t)
		model := make([]int, 0, meter.MemorySize)
		for range meter.MemorySize {
			model = append(model, 1440)
		}
		for _, tid := range rapid.SliceOfN(rapid.IntRange(1300, 1600), 0, 150).Draw(t, "tids") {
			oldest, used := 0, false
			for i, have := range model {
				if have < model[oldest] {
					oldest = i
				}
				used = used || have == tid
			}
			want := meter.Accepted
			switch {
			case tid < model[oldest]:
				want = meter.OldError
			case used:
				want = meter.UsedError
			default:
				model[oldest] = tid
			}
			enter(t, m, is.credit(t, sts.Time, sts.TID(tid), 1), want)
		}
	})
}

// TestCorruptedDigits: a token with any one digit changed is rejected without
// effect, or is another token.
func TestCorruptedDigits(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		rapid.Check(t, func(t *rapid.T) {
			is := newIssuer(t, ea, nil)
			m := is.meter(t)
			tid := rapid.Uint32Range(1441, 1<<24-1).Draw(t, "tid")
			token := []byte(is.credit(t, sts.Electricity, sts.TID(tid), 500))
			at := rapid.IntRange(0, 19).Draw(t, "position")
			token[at] = '0' + (token[at]-'0'+byte(rapid.IntRange(1, 9).Draw(t, "by")))%10
			before := marshal(t, m)
			r, err := m.Enter(string(token), noon)
			// One change in 65536 passes the checksum, but it then carries something
			// else: the cipher is a bijection and the checksum covers RND.
			if err == nil && r.Accepted && *r.Class == 0 && *r.TID == tid && r.Amount == "500" {
				t.Fatalf("the corrupted token says the same: %s", r)
			}
			if err != nil || !r.Accepted {
				if string(before) != string(marshal(t, m)) {
					t.Fatalf("%s changed the meter", token)
				}
			}
		})
	})
}
