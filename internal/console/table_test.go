package console_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

// A table of sentences fits its width, whatever is in it, and loses no word.
func TestProseTableFits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("the kernel said so ", 40)
	for name, rows := range map[string][][]string{
		"none":      nil,
		"short":     {{"a", "b", "c"}},
		"sentences": {{"control", long, "short"}, {"other", "x", long}},
		"one word":  {{"control", strings.Repeat("é", 500), strings.Repeat("/path", 100)}},
	} {
		var out bytes.Buffer
		console.ProseTable(&out, 80, []string{"CONTROL", "GOT", "PROOF"}, rows)
		widest := 0
		for line := range strings.Lines(out.String()) {
			widest = max(widest, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")))
		}
		if widest > 80 || widest < 20 {
			t.Errorf("%s: %d columns\n%s", name, widest, out.String())
		}
		for _, r := range rows {
			for _, cell := range r {
				for _, word := range strings.Fields(cell)[:1] {
					if len(word) < 20 && strings.Count(out.String(), word) < len(strings.Fields(cell))/4 {
						t.Errorf("%s: %q is lost\n%s", name, word, out.String())
					}
				}
			}
		}
	}
}
