package isolation

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestOnlyTheSameBytesPass(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		r       replayed
		varying []string
		want    string
	}{
		"refused alike":      {r: replayed{theirs: "no", none: "no"}},
		"but for own words":  {r: replayed{theirs: "no 1", none: "no 22"}, varying: []string{"1", "22"}},
		"accepted":           {r: replayed{none: "no"}, want: "is accepted"},
		"nobody's accepted":  {r: replayed{theirs: "no"}, want: "nobody's is accepted"},
		"told apart":         {r: replayed{theirs: "no", none: "No"}, want: "tells A's from nobody's"},
		"worthless":          {r: replayed{theirs: "no", none: "no", before: errors.New("x")}, want: "proves nothing"},
		"leaves something":   {r: replayed{theirs: "no", none: "no", after: errors.New("x")}, want: "afterwards"},
		"own words are both": {r: replayed{theirs: "no 1", none: "no 2"}, varying: []string{"1"}, want: "tells"},
	} {
		r := &replay{suite: &Suite{Out: io.Discard}}
		r.record(c.r, c.varying...)
		holes := strings.Join(r.suite.holes, "; ")
		if (c.want == "") != (holes == "") || !strings.Contains(holes, c.want) {
			t.Errorf("%s: %q instead of %q", name, holes, c.want)
		}
	}
}
