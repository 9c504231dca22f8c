package meter_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// newKey is the change to key number n, of type DUTK.
func newKey(t fataler, ea int, n byte) sts.KeyChange {
	return sts.KeyChange{Key: testKey(t, ea, 2, n), KRN: 2, TI: 99, KEN: 0xA7, SGC: 999999}
}

func hexKey(k sts.DecoderKey) string { return strings.ToUpper(hex.EncodeToString(k.AppendBytes(nil))) }

// sizes are the set sizes of each algorithm.
var sizes = map[string]struct{ ea, count int }{"EA07 two": {7, 2}, "EA07 three": {7, 3}, "EA11": {11, 4}}

func TestKeyChangeInEveryOrder(t *testing.T) {
	t.Parallel()
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := newIssuer(t, size.ea, nil)
			change := newKey(t, size.ea, 2)
			tokens := is.change(t, change, size.count)
			for _, order := range permutations(size.count) {
				m := is.meter(t)
				for i, at := range order {
					if i == len(order)-1 {
						enter(t, m, tokens[at], meter.Accepted)
						continue
					}
					r := enter(t, m, tokens[at], meter.SectionHeld)
					if m.State().KeyChanges != 0 || len(r.Missing) == 0 {
						t.Fatalf("order %v: changed before the set was whole: %s", order, r)
					}
					enter(t, m, tokens[at], meter.SectionHeld) // the same section again
				}
				s := m.State()
				sgc := "999999"
				if size.count == 2 {
					sgc = "123456"
				}
				if s.Key != hexKey(change.Key) || s.KRN != 2 || s.TI != 99 || s.KEN != 0xA7 || s.KT != 2 || s.SGC != sgc || s.Pending != nil || s.KeyChanges != 1 {
					t.Fatalf("order %v: %+v", order, s)
				}
				for _, token := range tokens {
					enter(t, m, token, meter.CRCError)
				}
				after := *is
				after.key = change.Key
				enter(t, m, after.credit(t, sts.Electricity, 6000, 1), meter.Accepted)
			}
		})
	}
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for _, p := range permutations(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(p), at, n-1))
		}
	}
	return all
}

func TestRolloverClearsTheMemory(t *testing.T) {
	t.Parallel()
	for name, size := range sizes {
		for _, rollover := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				is := newIssuer(t, size.ea, nil)
				m := is.meter(t)
				enter(t, m, is.credit(t, sts.Electricity, 900000, 5), meter.Accepted)
				change := newKey(t, size.ea, 2)
				change.Rollover = rollover
				for i, token := range is.change(t, change, size.count) {
					want := meter.SectionHeld
					if i == size.count-1 {
						want = meter.Accepted
					}
					enter(t, m, token, want)
				}
				is.key = change.Key
				want, base := meter.UsedError, 2014
				if rollover {
					want, base = meter.Accepted, 2035
				}
				enter(t, m, is.credit(t, sts.Electricity, 900000, 5), want)
				if rollover {
					enter(t, m, is.credit(t, sts.Electricity, 1, 5), meter.Accepted)
					enter(t, m, is.credit(t, sts.Electricity, 0, 5), meter.UsedError)
				} else {
					enter(t, m, is.credit(t, sts.Electricity, 1, 5), meter.OldError)
				}
				if m.State().BaseDate != base {
					t.Errorf("base date %d, want %d", m.State().BaseDate, base)
				}
			})
		}
	}
}

func TestRolloverToTheSameKey(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		m := is.meter(t)
		change := newKey(t, ea, 1) // number 1 is the meter's own
		change.Rollover = true
		count := map[int]int{7: 2, 11: 4}[ea]
		tokens := is.change(t, change, count)
		for _, token := range tokens[:count-1] {
			enter(t, m, token, meter.SectionHeld)
		}
		enter(t, m, tokens[count-1], meter.FormatError)
		if s := m.State(); s.Pending != nil || s.KRN != 1 || s.TIDs[0] == 0 {
			t.Errorf("state after the refusal: %+v", s)
		}
	})
}

func TestHeldSectionsLapse(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		count := map[int]int{7: 2, 11: 4}[ea]
		tokens := is.change(t, newKey(t, ea, 2), count)
		last := func(after time.Duration) meter.Code {
			m := is.meter(t)
			for _, token := range tokens[:count-1] {
				enterAt(t, m, token, noon, meter.SectionHeld)
			}
			r, err := m.Enter(tokens[count-1], noon.Add(after))
			if err != nil {
				t.Fatal(err)
			}
			return r.Code
		}
		if got := last(meter.SetLifetime); got != meter.Accepted {
			t.Errorf("within the lifetime: %s", got)
		}
		if got := last(meter.SetLifetime + time.Second); got != meter.SectionHeld {
			t.Errorf("after the lifetime: %s", got)
		}
		if got := last(-24 * time.Hour); got != meter.Accepted {
			t.Errorf("clock set back: %s", got)
		}
	})
}

func TestAnotherSetReplacesTheHeldOne(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		m := is.meter(t)
		count := map[int]int{7: 2, 11: 4}[ea]
		a, b := is.change(t, newKey(t, ea, 2), count), is.change(t, newKey(t, ea, 3), count)
		enter(t, m, a[0], meter.SectionHeld)
		r := enter(t, m, b[0], meter.SectionHeld)
		if len(r.Missing) != count-1 {
			t.Errorf("missing %v after another set began", r.Missing)
		}
		enter(t, m, is.credit(t, sts.Electricity, 6000, 1), meter.Accepted) // does not disturb the set
		for i, token := range b[1:] {
			want := meter.SectionHeld
			if i == count-2 {
				want = meter.Accepted
			}
			enter(t, m, token, want)
		}
		if m.State().Key != hexKey(testKey(t, ea, 2, 3)) {
			t.Error("the key is not that of the second set")
		}
	})
}

func TestKeyTypes(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		permitted := map[[2]int]bool{
			{0, 1}: true, {0, 2}: true, {0, 3}: true, {1, 1}: true, {1, 2}: true, {1, 3}: true,
			{2, 1}: true, {2, 2}: true, {3, 3}: true,
		}
		for from := range 4 {
			for to := range 4 {
				is := newIssuer(t, ea, func(c *meter.Config) {
					c.KT, c.TCT = from, 1
					if from == 0 {
						c.KRN = 0
					}
				})
				section := sts.KeySection{EA: sts.EA(ea), Number: 1, Key: 1, KRN: 1, KT: sts.KeyType(to)}
				want := meter.KeyTypeError
				if permitted[[2]int{from, to}] {
					want = meter.SectionHeld
				}
				r, err := is.meter(t).Enter(is.token(t, section), noon)
				if err != nil || r.Code != want {
					t.Errorf("key type %d to %d: %s %v, want %s", from, to, r.Code, err, want)
				}
			}
		}
		numeric := newIssuer(t, ea, func(c *meter.Config) { c.KT = 1 })
		section := sts.KeySection{EA: sts.EA(ea), Number: 1, Key: 1, KRN: 1, KT: sts.DCTK}
		enter(t, numeric.meter(t), numeric.token(t, section), meter.KeyTypeError)
	})
}

func TestImpossibleSections(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ea    int
		block uint64
		want  meter.Code
	}{
		"KRN 0":               {11, 3<<60 | 2<<48, meter.RangeError},
		"KRN 10":              {7, 3<<60 | 10<<52 | 2<<48, meter.RangeError},
		"reserved bit":        {11, 3<<60 | 1<<52 | 6<<48, meter.RangeError},
		"TI 100":              {7, 4<<60 | 100<<48, meter.RangeError},
		"fourth of EA07":      {7, 9 << 60, meter.RangeError},
		"padding of third":    {7, 8<<60 | 1<<16, meter.RangeError},
		"SGC above 999999":    {7, 8<<60 | 1000000<<36, meter.RangeError},
		"KT 0":                {7, 3<<60 | 1<<52, meter.KeyTypeError},
		"highest half of SGC": {11, 9<<60 | 0xFFF<<48, meter.SectionHeld},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := newIssuer(t, test.ea, nil)
			enter(t, is.meter(t), is.raw(t, 2, withCRC(2, test.block)), test.want)
		})
	}
	// Each half is possible, both together are no supply group code.
	is := newIssuer(t, 11, nil)
	m := is.meter(t)
	tokens := is.change(t, newKey(t, 11, 2), 4)
	for _, token := range tokens[:3] {
		enter(t, m, token, meter.SectionHeld)
	}
	enter(t, m, is.token(t, sts.KeySection{EA: 11, Number: 4, Key: 1, SGC: 0xFFF}), meter.RangeError)
	if m.State().Pending != nil {
		t.Error("the impossible set is still held")
	}
}
