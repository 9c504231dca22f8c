package dashboard

import "testing"

// TestSupports: manufacturing firmware goes with the mode only. No module here
// has any, so no server can show it.
func TestSupports(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		firmware      string
		manufacturing bool
		want          bool
	}{
		{"STS64V10", false, true}, {"STS64V10", true, true}, {"STS64M10", true, true}, {"STS64M10", false, false}, {"STS65X10", true, false}, {"", true, false},
	} {
		if got := supports(c.firmware, c.manufacturing); got != c.want {
			t.Errorf("%q with manufacturing mode %v: %v", c.firmware, c.manufacturing, got)
		}
	}
}
