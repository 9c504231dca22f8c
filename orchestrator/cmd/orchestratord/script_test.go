package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/etcdtest"
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	testscript.Main(cleanup{m}, map[string]func(){"orchestratord": func() { console.Main(app) }})
}

// cleanup removes what the tests built.
type cleanup struct{ *testing.M }

func (c cleanup) Run() int {
	code := c.M.Run()
	if dir := built.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
	return code
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			want := filepath.Join(e.WorkDir, "want")
			p, err := os.ReadFile(want)
			if err != nil {
				return err
			}
			if err := os.WriteFile(want, []byte(strings.ReplaceAll(string(p), "$WORK", e.WorkDir)), 0o644); err != nil {
				return err
			}
			return os.Chmod(filepath.Join(e.WorkDir, "vcmd"), 0o755)
		},
	})
}
