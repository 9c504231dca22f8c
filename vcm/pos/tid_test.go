package pos

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWish reads the flags as the interface's table has them.
func TestWish(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 10, 0, 59, 0, time.UTC)
	today := now.Truncate(24 * time.Hour)
	minute := func(t time.Time) int64 { return (t.Unix() - unix1993) / 60 }
	for name, c := range map[string]struct {
		time, flags int64
		want        wish
		bad         string // the parameter refused
	}{
		"system clock":       {999, 0, wish{minute: minute(now)}, ""},
		"external clock":     {now.Unix() - 3600, 1, wish{minute: minute(now.Add(-time.Hour))}, ""},
		"adjusted":           {17280600, 2, wish{minute: 17280600, fixed: true}, ""},
		"adjusted zero":      {0, 2, wish{minute: 0, fixed: true}, ""},
		"special":            {999, 4, wish{minute: minute(today) + 1, fixed: true, special: true}, ""},
		"special, external":  {now.Unix() - 86400, 5, wish{minute: minute(today) - 1439, fixed: true, special: true}, ""},
		"before 1993":        {unix1993 - 1, 1, wish{}, "tokenTime"},
		"after every base":   {unix1993 + 60*(lastMinute+1), 1, wish{}, "tokenTime"},
		"adjusted negative":  {-1, 2, wish{}, "tokenTime"},
		"adjusted too late":  {lastMinute + 1, 2, wish{}, "tokenTime"},
		"adjusted external":  {0, 3, wish{}, "flags"},
		"adjusted special":   {0, 6, wish{}, "flags"},
		"all":                {0, 7, wish{}, "flags"},
		"undefined":          {0, 8, wish{}, "flags"},
		"negative":           {0, -1, wish{}, "flags"},
		"high bit with zero": {0, 1 << 40, wish{}, "flags"},
	} {
		got, err := wishOf(now, c.time, c.flags)
		var f *Fault
		if c.bad == "" && (err != nil || got != c.want) {
			t.Errorf("%s: %+v, %v, expected %+v", name, got, err, c.want)
		}
		if c.bad != "" && (!errors.As(err, &f) || f.Key != ParamRange || f.Args[0] != c.bad) {
			t.Errorf("%s: %v, expected a refusal of %s", name, err, c.bad)
		}
	}
}

// TestNext follows the product's example: three tokens asked for in minute
// 00:03 come out as 00:03, 00:04 and 00:05, and one at 00:01 as 00:02.
func TestNext(t *testing.T) {
	t.Parallel()
	const day = 17000 * 1440
	var m memory
	for _, c := range []struct{ ask, want int64 }{
		{day + 3, day + 3}, {day + 3, day + 4}, {day + 3, day + 5}, {day + 9, day + 9}, {day + 8, day + 8}, {day + 8, day + 10},
		{day + 1440, day + 1440}, {day + 1440, day + 1442}, {day + 1441, day + 1443},
		{day, day + 6}, // below the oldest: moved above it
	} {
		got, err := m.next(c.ask)
		if err != nil || got != c.want {
			t.Errorf("minute %d gave %d, %v, expected %d", c.ask-day, got-day, err, c.want-day)
		}
		m.ordinary.add(uint32(got))
	}
}

// TestMemoryProperties: whatever is asked in whatever order, no minute is ever
// given twice, also after old ones were forgotten.
func TestMemoryProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const day = 17000 * 1440
		var m memory
		given := make(map[int64]bool)
		for range rapid.IntRange(1, 400).Draw(t, "asks") {
			at := day + int64(rapid.IntRange(0, 3000).Draw(t, "minute"))
			if rapid.Bool().Draw(t, "named") {
				found := m.useOf(at)
				if (found == again) != given[at] && found != unknown {
					t.Fatalf("minute %d is %d, given %v", at-day, found, given[at])
				}
				if given[at] && found == fresh {
					t.Fatalf("minute %d is called fresh", at-day)
				}
				if found != fresh {
					continue
				}
				m.ownList(at).add(uint32(at))
			} else {
				got, err := m.next(at)
				if err != nil {
					t.Fatal(err)
				}
				if reservedMinute(got) {
					t.Fatalf("reserved minute %d", got-day)
				}
				m.ordinary.add(uint32(got))
				at = got
			}
			if given[at] {
				t.Fatalf("minute %d twice", at-day)
			}
			given[at] = true
			back, err := decodeMemory(m.encode(nil))
			if err != nil || !slices.Equal(back.ordinary.minutes, m.ordinary.minutes) || !slices.Equal(back.named.minutes, m.named.minutes) ||
				!slices.Equal(back.special.minutes, m.special.minutes) || back.newest() != m.newest() {
				t.Fatalf("%+v became %+v, %v", m, back, err)
			}
			m = back
		}
	})
}

func FuzzMemory(f *testing.F) {
	m := memory{ordinary: list{minutes: []uint32{1, 2, 3}}, special: list{minutes: []uint32{1441}, floor: 1}}
	f.Add(m.encode(nil))
	f.Add([]byte{})
	f.Add([]byte{memoryVersion, 0, 0, 0, 0, 51})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMemory(data)
		if err == nil && len(data) > 0 && !slices.Equal(m.encode(nil), data) {
			t.Errorf("%x became %x", data, m.encode(nil))
		}
	})
}
