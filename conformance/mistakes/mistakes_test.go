// Package mistakes_test makes every mistake that people and their programs make
// at the stations of a live platform. Each has to be answered with what is wrong,
// and to change nothing.
package mistakes_test

import (
	"os"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
)

var binaries rigtest.Binaries

func TestMain(m *testing.M) { os.Exit(binaries.Main(m)) }

// Exit codes of the tools; a peer that closes the connection has none of them.
const (
	done        = 0
	usage       = 2
	refused     = 3
	notFound    = 4
	unavailable = 5
	limit       = 6
	integrity   = 7
	hungUp      = -1
)

// mistake is one line of the table.
type mistake struct {
	name string
	make func(w *world) answer
	code int
	// says are parts of the answer, in any order and case.
	says []string
}

// answer is what whoever made the mistake got.
type answer struct {
	code int
	text string
}

// TestMistakes makes one mistake after the other on one platform.
func TestMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	said, kept := w.said(t), w.kept(t)
	for _, station := range []struct {
		name     string
		mistakes []mistake
	}{
		{"requests", requestMistakes()}, {"hosting", hostingMistakes()}, {"enrolment", enrolMistakes()}, {"keys", keyMistakes()},
		{"users", userMistakes()}, {"vending", vendingMistakes()}, {"the wire", wireMistakes()}, {"the maker", makerMistakes()},
	} {
		t.Run(station.name, func(t *testing.T) {
			for _, m := range station.mistakes {
				t.Run(m.name, func(t *testing.T) {
					w.t = t
					m.check(t, m.make(w))
					now := w.kept(t)
					unchanged(t, kept, now)
					kept = now
				})
			}
			now := w.said(t)
			unchanged(t, said, now)
			said = now
		})
	}
	w.t = t
	w.nothingIssued(t)
	w.keysStillLoad(t)
}

func (m mistake) check(t *testing.T, got answer) {
	t.Helper()
	if got.code != m.code {
		t.Errorf("the code is %d, not %d: %s", got.code, m.code, got.text)
	}
	if len(m.says) == 0 {
		t.Error("nothing is expected of the answer")
	}
	for _, part := range m.says {
		if !strings.Contains(strings.ToLower(got.text), strings.ToLower(part)) {
			t.Errorf("%q is missing in the answer: %s", part, got.text)
		}
	}
}

func unchanged(t *testing.T, before, after map[string]string) {
	t.Helper()
	for what, was := range before {
		if now := after[what]; now != was {
			t.Errorf("%s changed from\n%s\nto\n%s", what, was, now)
		}
	}
}
