package isolation_test

import (
	"os"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/isolation"
)

// The short form of 'make isolation', as the user that runs the tests.
func TestNothingGetsOut(t *testing.T) {
	t.Parallel()
	bin, err := os.MkdirTemp("", "tess-iso-bin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(bin); err != nil {
			t.Error(err)
		}
	})
	if err := isolation.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tiso-") // the test's own is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	s := &isolation.Suite{Bin: bin, Dir: dir, Out: &said, Short: true}
	holes, err := s.Run(t.Context())
	for _, h := range holes {
		t.Error(h)
	}
	if err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("the state and the logs stay in %s\n%s", dir, said.String())
		return
	}
	t.Log(said.String())
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
