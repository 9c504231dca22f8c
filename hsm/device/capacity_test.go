package device

import (
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
)

// run lets VCMs that always want more lease for a minute and returns how many
// tokens a second each got.
func run(c *capacity, shares []*share, want []int) []float64 {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	got := make([]float64, len(shares))
	const seconds = 60
	for range seconds * 100 {
		now = now.Add(10 * time.Millisecond)
		for i, s := range shares {
			if want[i] > 0 {
				got[i] += float64(c.lease(s, want[i], now).Tokens)
			}
		}
	}
	for i := range got {
		got[i] /= seconds
	}
	return got
}

func newShare(s hsmapi.Speed) *share { return newCapacity().share("a VCM", s) }

func within(got, low, high float64) bool { return got >= low && got <= high }

func TestCapacityIsShared(t *testing.T) {
	t.Parallel()
	speeds := []hsmapi.Speed{{Guaranteed: 500, Ceiling: 1000, Unit: 1000}, {Guaranteed: 250, Ceiling: 500, Unit: 1000}}
	for what, tc := range map[string]struct {
		want      []int
		low, high []float64
	}{
		"alone up to the ceiling":       {[]int{1000, 0}, []float64{990, 0}, []float64{1020, 0}},
		"a slow one up to its own":      {[]int{0, 1000}, []float64{0, 490}, []float64{0, 510}},
		"both get their guarantee":      {[]int{1000, 1000}, []float64{495, 245}, []float64{765, 510}},
		"a modest one is not disturbed": {[]int{1000, 1}, []float64{890, 95}, []float64{920, 101}},
	} {
		c := newCapacity()
		c.rate(1000)
		got := run(c, []*share{newShare(speeds[0]), newShare(speeds[1])}, tc.want)
		for i := range got {
			if !within(got[i], tc.low[i], tc.high[i]) {
				t.Errorf("%s: VCM %d got %.0f a second, want %.0f to %.0f", what, i, got[i], tc.low[i], tc.high[i])
			}
		}
		if total := got[0] + got[1]; total > 1020 {
			t.Errorf("%s: %.0f a second in all, the unit is rated for 1000", what, total)
		}
	}
}

// What nobody is guaranteed goes to those who want it by the weight of their
// ratings, and to one of them alone if the others want nothing.
func TestTheRestIsSharedByWeight(t *testing.T) {
	t.Parallel()
	shares := func() []*share {
		return []*share{
			newShare(hsmapi.Speed{Guaranteed: 100, Ceiling: 800}), newShare(hsmapi.Speed{Guaranteed: 50, Ceiling: 400}), newShare(hsmapi.Speed{Guaranteed: 25, Ceiling: 200}),
		}
	}
	c := newCapacity()
	c.rate(700)
	for i, got := range run(c, shares(), []int{1000, 1000, 1000}) {
		if want := []float64{400, 200, 100}[i]; !within(got, 0.85*want, 1.2*want) {
			t.Errorf("VCM %d got %.0f a second, want about %.0f", i, got, want)
		}
	}
	c = newCapacity()
	c.rate(700)
	if got := run(c, shares(), []int{0, 1000, 0}); !within(got[1], 390, 410) {
		t.Errorf("alone it got %.0f a second, its ceiling is 400", got[1])
	}
}

// A VCM that ends and comes back, again and again, leases no more than one that
// stays.
func TestComingBackSavesNothingUp(t *testing.T) {
	t.Parallel()
	c := newCapacity()
	c.rate(1000)
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	total := 0
	const seconds = 10
	for range seconds * 20 {
		s := c.share("a VCM", hsmapi.Speed{Guaranteed: 100, Ceiling: 200, Unit: 1000})
		total += c.lease(s, 1000, now).Tokens
		now = now.Add(50 * time.Millisecond)
	}
	if rate := total / seconds; rate > 210 {
		t.Errorf("%d tokens a second, the ceiling is 200", rate)
	}
	// Another rating counts from now on, and a new partition begins anew.
	now = now.Add(time.Second)
	if n := c.lease(c.share("a VCM", hsmapi.Speed{Guaranteed: 40, Ceiling: 40, Unit: 1000}), 1000, now).Tokens; n != 10 {
		t.Errorf("%d tokens at once with a rating of 40", n)
	}
	c.drop("a VCM")
	if n := c.lease(c.share("a VCM", hsmapi.Speed{Guaranteed: 40, Ceiling: 40, Unit: 1000}), 1000, now).Tokens; n != 10 {
		t.Errorf("%d tokens at once of a new partition", n)
	}
}

func TestUnlimitedVCM(t *testing.T) {
	t.Parallel()
	got := newCapacity().lease(newShare(hsmapi.Speed{}), 12345, time.Now())
	if got.Tokens != 12345 || got.Retry != 0 {
		t.Errorf("%+v", got)
	}
}

func TestLeaseSaysWhenToAskAgain(t *testing.T) {
	t.Parallel()
	c, s := newCapacity(), newShare(hsmapi.Speed{Guaranteed: 10, Ceiling: 10, Unit: 10})
	c.rate(10)
	now := time.Now()
	c.lease(s, 100, now)
	got := c.lease(s, 100, now)
	if got.Tokens != 0 || got.Retry < 5 || got.Retry > 100 {
		t.Errorf("%+v", got)
	}
	// Waiting as told makes progress, also at one token a second.
	slow := newShare(hsmapi.Speed{Guaranteed: 1, Ceiling: 1, Unit: 10})
	total := 0
	for range 20 {
		l := c.lease(slow, 1, now)
		total += l.Tokens
		now = now.Add(time.Duration(max(l.Retry, 1)) * time.Millisecond)
	}
	if total < 5 {
		t.Errorf("%d tokens in 20 tries at one a second", total)
	}
}
