package pos

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestAmounts: what goes into a token and what is said of it.
func TestAmounts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		class, subclass int
		ask             float64
		field           uint32
		amount          float64
		scaled          string
	}{
		{0, 0, 102, 0x0066, 102, "10.2"},
		{0, 0, 0, 0, 0, "0.0"},
		{0, 0, 100, 0x64, 100, "10.0"},
		{0, 0, 102.00000381, 0x66, 102, "10.2"},
		{0, 0, 102.5, 0x67, 103, "10.3"},
		{0, 0, 102.00001, 0x67, 103, "10.3"},
		{0, 1, 16384, 0x4000, 16384, "1638.4"},
		{0, 2, 16385, 0x4001, 16394, "1639.4"},
		{0, 3, 180223, 0x8000, 180224, "18022.4"},
		{0, 0, 18201624, 0xFFFF, 18201624, "1820162.4"},
		{0, 4, 1, 0x060AA, 1.00004, "1.00004"},
		{0, 5, -1, 0x860A9, -0.99994, "-0.99994"},
		{0, 7, 0, 0, 0, "0.00000"},
		{2, 0, 0, 0, 0, "0"},
		{2, 0, 5000, 5000, 5000, "5000"},
		{2, 1, 65535, 0xFFFF, 65535, "65535"},
		{2, 5, 0, 0, 0, "0"},
		{2, 7, 17, 17, 17, "17"},
		{2, 10, 64535, 64535, 64535, "64535"},
		{2, 15, 1, 1, 1, "1"},
	} {
		k, err := kindOf(c.class, c.subclass)
		if err != nil {
			t.Fatal(err)
		}
		field, err := k.encode(c.ask)
		if err != nil || field != c.field {
			t.Errorf("%d/%d %v: field %x, %v, expected %x", c.class, c.subclass, c.ask, field, err, c.field)
			continue
		}
		if amount, scaled := k.amounts(field); amount != c.amount || scaled != c.scaled {
			t.Errorf("%d/%d %v: %v %q, expected %v %q", c.class, c.subclass, c.ask, amount, scaled, c.amount, c.scaled)
		}
	}
}

func TestAmountRefusals(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		class, subclass int
		bad             []float64
	}{
		{0, 0, []float64{-1, -0.00001, 18201624.1, nan, inf, -inf, 1e300}},
		{0, 4, []float64{1.64e30, -1.64e30, nan, inf, -inf}},
		{2, 0, []float64{-1, 18201625, nan}},
		{2, 1, []float64{-1, 65536, 0.5, nan, inf}},
		{2, 5, []float64{1, nan}},
		{2, 10, []float64{64535.5, -0.1}},
	} {
		k, err := kindOf(c.class, c.subclass)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range c.bad {
			if field, err := k.encode(v); err == nil {
				t.Errorf("%d/%d accepts %v as %x", c.class, c.subclass, v, field)
			}
		}
	}
	for class, bad := range map[int][]int{0: {-1, 8, 15, 16}, 2: {-1, 3, 4, 8, 9, 16}} {
		for _, s := range bad {
			if _, err := kindOf(class, s); err == nil {
				t.Errorf("class %d accepts subclass %d", class, s)
			}
		}
	}
}

// TestNeverLess: the customer never gets less than was asked for, and asking
// for what was given gives the same.
func TestNeverLess(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		subclass := rapid.IntRange(0, 7).Draw(t, "subclass")
		ask := rapid.Float64Range(0, 18201624).Draw(t, "amount")
		if subclass >= 4 {
			ask = rapid.Float64Range(-1e10, 1e10).Draw(t, "currency")
		}
		k := creditKinds[subclass]
		field, err := k.encode(ask)
		if err != nil {
			t.Fatal(err)
		}
		amount, _ := k.amounts(field)
		if amount < ask-0.00001*(1+math.Abs(ask)*1e-9) {
			t.Fatalf("%v became %v", ask, amount)
		}
		if again, err := k.encode(amount); err != nil || again != field {
			t.Fatalf("%v became %x, and that %x, %v", ask, field, again, err)
		}
	})
}
