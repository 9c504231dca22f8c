package clients_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/interop"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// TestTokenService speaks to port 9443 with OpenSSL's client, with Python's
// Thrift library, and with frames that deployed clients sent.
func TestTokenService(t *testing.T) {
	t.Parallel()
	_, v := binaries.Full(t, rig.Plan{Name: "clients", Groups: []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "Clients"}}})
	other := filepath.Join(t.TempDir(), "other.pem")
	if out := run(t, filepath.Dir(other), "", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-subj", "/CN=other", "-days", "1", "-keyout", "other.key", "-out", other); out.code != 0 {
		t.Fatalf("openssl req: %s", out.stderr)
	}
	host, _, _ := strings.Cut(v.Address, ":")
	t.Run("openssl", func(t *testing.T) {
		t.Parallel()
		connect := func(ca string, args ...string) ran {
			return run(t, t.TempDir(), "", "openssl", append([]string{"s_client", "-connect", v.Address, "-CAfile", ca,
				"-verify_return_error", "-verify_ip", host, "-brief"}, args...)...)
		}
		for _, good := range [][]string{{"-tls1_3"}, {"-tls1_2"}} {
			if out := connect(v.CA, good...); out.code != 0 || !strings.Contains(out.stderr, "Verification: OK") {
				t.Errorf("%v: exit code %d: %s%s", good, out.code, out.stdout, out.stderr)
			}
		}
		for _, bad := range []struct {
			what, ca, want string
			args           []string
		}{
			{"another authority", other, "verify error", nil},
			{"another address", v.CA, "IP address mismatch", []string{"-verify_ip", "127.0.0.1"}},
			{"TLS 1.1", v.CA, "protocol version", []string{"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"}},
			{"a cipher of old", v.CA, "handshake failure", []string{"-tls1_2", "-cipher", "AES128-SHA"}},
		} {
			if out := connect(bad.ca, bad.args...); out.code == 0 || !strings.Contains(out.stderr+out.stdout, bad.want) {
				t.Errorf("%s: exit code %d, %q is missing: %s%s", bad.what, out.code, bad.want, out.stdout, out.stderr)
			}
		}
	})
	for _, language := range []string{"python", interop.Frames} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			var said bytes.Buffer
			err := interop.Run(t.Context(), interop.Config{
				Address: v.Address, CA: v.CA, User: v.User, PasswordFile: v.Secret, Languages: []string{language},
				IDL: "../../vcm/prismtoken/idl/prismtoken1-TokenApi.thrift",
				Meters: interop.Meters{DRN11: "00000000000", DRN07: "0100000000008", SGC: 123456, KRN: 1, TI: 1, KEN: 255,
					ToSGC: 123456, ToKRN: 1, ToTI: 2},
				Timeout: time.Minute, Now: time.Now, Out: &said,
			})
			if err != nil {
				t.Fatalf("%v\n%s", err, said.String())
			}
			steps := 0
			for line := range strings.Lines(said.String()) {
				var s interop.Step
				if err := json.Unmarshal([]byte(line), &s); err != nil || !s.OK {
					t.Errorf("%s %v", line, err)
				}
				steps++
			}
			if steps < len(interop.Steps()) {
				t.Errorf("%d steps:\n%s", steps, said.String())
			}
		})
	}
}
