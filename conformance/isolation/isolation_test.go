package isolation_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/isolation"
)

// built are the programs of this test process.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// programs builds them when first asked for.
func programs(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "tess-iso-bin-"); built.err == nil {
			built.err = isolation.Build(context.Background(), built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir
}

// The short form of 'make isolation', as the user that runs the tests.
func TestNothingGetsOut(t *testing.T) {
	t.Parallel()
	bin := programs(t)
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
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
