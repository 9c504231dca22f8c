package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tesserae-hsm/tesserae/conformance/scripttest"
	"github.com/tesserae-hsm/tesserae/conformance/vending/standin"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vend": main})
}

// TestScripts runs each script against a server of its own: ADDRESS, ca.pem and
// password are its; other.pem is another server's certificate.
func TestScripts(t *testing.T) {
	t.Parallel()
	p := scripttest.Params("testdata/script")
	p.Setup = func(env *testscript.Env) error {
		server, other := standin.Start(t), standin.Start(t)
		env.Setenv("ADDRESS", server.Address)
		if _, _, err := server.Files(env.WorkDir); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(env.WorkDir, "other.pem"), other.Certificate, 0o600)
	}
	testscript.Run(t, p)
}

func TestKWh(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"10.2": 102, "0.3": 3, "0.1": 1, "1820162.4": 18201624, "1e2": 1000, "10.25": 102.5} {
		if got, err := kWh(text); err != nil || got != want {
			t.Errorf("%s kWh: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "ten", "1,5"} {
		if _, err := kWh(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
