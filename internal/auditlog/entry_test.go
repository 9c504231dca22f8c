package auditlog

import (
	"testing"
	"time"
)

// A time's text is that of the layout which it is read with.
func TestATimeIsOfItsLayout(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Time{
		{},
		time.Unix(0, 0),
		time.Date(1, 1, 1, 0, 0, 0, 999, time.UTC),
		time.Date(987, 12, 31, 23, 59, 59, 999999999, time.UTC),
		time.Date(2026, 3, 1, 4, 5, 6, 7000, time.FixedZone("east", 5*3600)),
		time.Date(9999, 10, 11, 12, 13, 14, 123456789, time.UTC),
	} {
		at = at.UTC()
		if got, want := string(appendTime(nil, at)), at.Format(timeLayout); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
