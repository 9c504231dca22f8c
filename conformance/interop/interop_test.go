package interop_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/interop"
	"github.com/tesserae-hsm/tesserae/conformance/vending/standin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// config is a run against a stand-in server of its own.
func config(t *testing.T, out *bytes.Buffer, languages ...string) interop.Config {
	t.Helper()
	server := standin.Start(t)
	ca, password, err := server.Files(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return interop.Config{
		Address: server.Address, CA: ca, User: standin.User, PasswordFile: password, Languages: languages,
		IDL: "../../vcm/prismtoken/idl/prismtoken1-TokenApi.thrift", NodeModules: os.Getenv("NODE_PATH"),
		Meters:  interop.Meters{DRN11: "00000000000", DRN07: "0100000000008", SGC: 123456, KRN: 1, TI: 1, KEN: 255, ToSGC: 123457, ToKRN: 2, ToTI: 2},
		Timeout: 2 * time.Minute, Now: time.Now, Out: out,
	}
}

func steps(t *testing.T, out *bytes.Buffer) []interop.Step {
	t.Helper()
	var all []interop.Step
	for line := range strings.Lines(out.String()) {
		var s interop.Step
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, s)
	}
	return all
}

// TestClients runs every language that this machine has. One that is missing is
// named: only the run against a live server insists on all of them.
func TestClients(t *testing.T) {
	t.Parallel()
	for _, language := range interop.Known() {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := interop.Run(t.Context(), config(t, &out, language))
			all := steps(t, &out)
			if at := slices.IndexFunc(all, func(s interop.Step) bool { return strings.Contains(s.Detail, "is missing: ") }); at >= 0 && language != interop.Frames {
				t.Logf("REDUCED: the %s client did not run: %s", language, all[at].Detail)
				return
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}
			want := len(interop.Steps())
			if language == interop.Frames {
				want = 37
			}
			if len(all) != want {
				t.Errorf("%d steps, want %d", len(all), want)
			}
		})
	}
}

// TestExamples runs the guide's programs as far as this machine has what they
// need; the run against a live server insists on all of them.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, language := range interop.ExampleNames() {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			all, err := config(t, &out).RunExample(t.Context(), "../../docs/examples", language)
			if err != nil && strings.Contains(err.Error(), "is missing: ") && language != "go" {
				t.Logf("REDUCED: the %s example did not run: %v", language, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(all) != 3 {
				t.Errorf("%d steps, want 3", len(all))
			}
			for _, s := range all {
				if !s.OK {
					t.Errorf("%s: %s", s.Step, s.Detail)
				}
			}
		})
	}
}

func TestUnknownExample(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if _, err := config(t, &out).RunExample(t.Context(), "../../docs/examples", "cobol"); !errkind.Is(err, errkind.Invalid) {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for name, test := range map[string]struct {
		languages []string
		edit      func(*interop.Config)
		want      errkind.Kind
		detail    string
	}{
		"unknown language": {[]string{"cobol"}, func(*interop.Config) {}, errkind.Invalid, ""},
		"no language":      {nil, func(*interop.Config) {}, errkind.Invalid, ""},
		"no certificate":   {[]string{"frames"}, func(c *interop.Config) { c.CA = "none" }, errkind.Invalid, ""},
		"wrong password": {[]string{"frames"}, func(c *interop.Config) {
			c.PasswordFile = filepath.Join(t.TempDir(), "p")
			if err := os.WriteFile(c.PasswordFile, []byte("wrong\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, errkind.Refused, "ESignin.Authentication"},
		"another certificate": {[]string{"frames"}, func(c *interop.Config) {
			ca, _, err := standin.Start(t).Files(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			c.CA = ca
		}, errkind.Refused, "not trusted"},
		"no interface definition": {[]string{"python"}, func(c *interop.Config) { c.IDL = "none" }, errkind.Refused, "interface definition"},
	} {
		out.Reset()
		cfg := config(t, &out, test.languages...)
		test.edit(&cfg)
		if err := interop.Run(t.Context(), cfg); !errkind.Is(err, test.want) || !strings.Contains(out.String(), test.detail) {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
}
