package vcmcontrol

import (
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// The SM API can have any port that no other service of a VCM has.
func TestConductorPort(t *testing.T) {
	t.Parallel()
	for _, p := range []uint64{0, 1, 1023, 65536, 1<<64 - 1, 8443} {
		if err := CheckConductorPort(p); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%d: %v", p, err)
		}
	}
	for _, p := range []uint16{1024, DefaultConductorPort, 8442, 65535} {
		if err := CheckConductorPort(uint64(p)); err != nil {
			t.Error(err)
		}
		seen := map[uint16]string{}
		for _, s := range Ports(p) {
			if other, twice := seen[s.Port]; twice {
				t.Errorf("%s and %s are both on %d", other, s.Service, s.Port)
			}
			seen[s.Port] = s.Service
			if s.Service == ServiceSMAPI {
				if s.Port != p {
					t.Errorf("%d instead of %d", s.Port, p)
				}
			} else if err := CheckConductorPort(uint64(s.Port)); !errkind.Is(err, errkind.Invalid) {
				t.Errorf("the port of %s: %v", s.Service, err)
			}
		}
	}
	if got := Ports(0)[1]; got.Service != ServiceSMAPI || got.Port != DefaultConductorPort {
		t.Errorf("%+v", got)
	}
}
