package errkind_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func TestNamesRoundTrip(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, k := range errkind.All() {
		if seen[k.String()] {
			t.Errorf("name %q used twice", k)
		}
		seen[k.String()] = true
		if got := errkind.Parse(k.String()); got != k {
			t.Errorf("Parse(%q) = %v", k, got)
		}
	}
	if got := errkind.Parse("no such kind"); got != errkind.Internal {
		t.Errorf("unknown name parsed as %v", got)
	}
}

func TestKindSurvivesWrapping(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("outer: %w", errkind.Errorf(errkind.Limit, "disk: %w", io.ErrShortWrite))
	if !errkind.Is(err, errkind.Limit) {
		t.Errorf("kind = %v, want limit", errkind.Of(err))
	}
	if !errors.Is(err, io.ErrShortWrite) {
		t.Error("the cause is lost")
	}
	if errkind.Of(io.EOF) != errkind.Internal {
		t.Error("an error without a kind must be internal")
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	want := map[errkind.Kind]int{
		errkind.Internal: 1, errkind.Invalid: 2, errkind.Refused: 3, errkind.Unauthorised: 3,
		errkind.NotFound: 4, errkind.Limit: 6, errkind.Mode: 3, errkind.Integrity: 7, errkind.Unavailable: 5,
	}
	for _, k := range errkind.All() {
		w, ok := want[k]
		if !ok {
			t.Errorf("kind %v has no exit code in this table", k)
		}
		if got := k.ExitCode(); got != w {
			t.Errorf("%v exits %d, want %d", k, got, w)
		}
	}
}
