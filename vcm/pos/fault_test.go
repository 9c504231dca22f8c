package pos_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
)

// TestFaultOf: every kind of error has a client's key and a text that tells
// nothing of the inside.
func TestFaultOf(t *testing.T) {
	t.Parallel()
	want := map[errkind.Kind]string{
		errkind.Unavailable: "ESm: Security Module error '01': STS API error DEVICE_FAILURE",
		errkind.Limit:       "ESm: Security Module error '35': STS API error VENDING_INHIBITED",
	}
	for _, kind := range errkind.All() {
		cause := errkind.Errorf(kind, "lease of the unit's capacity: write /data/store: broken pipe")
		f := pos.FaultOf(cause)
		text := string(f.Key) + ": " + f.Error()
		if want[kind] == "" {
			want[kind] = "EService: Unhandled exception '" + kind.String() + "': the cause is in the module's log"
		}
		if text != want[kind] {
			t.Errorf("%s: %q, expected %q", kind, text, want[kind])
		}
		if !errors.Is(f, cause) || errkind.Of(f) != kind {
			t.Errorf("%s: the fault hides its cause", kind)
		}
	}
	for _, code := range tsm.Codes() {
		f := pos.FaultOf(&tsm.Error{Code: code, Text: "SM!KREPSM.3B.8: the inside"})
		want := "Security Module error '" + string(code) + "': STS API error " + code.Identifier()
		if code == tsm.CodeExtended {
			want = "Security Module error 'EE': SM!KREPSM.3B.8: the inside"
		}
		if f.Key != pos.SecurityModule || f.Error() != want || strings.Contains(want, "UNKNOWN") {
			t.Errorf("code %s: %q, expected %q", code, f.Error(), want)
		}
	}
}
