package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tesserae-hsm/tesserae/conformance/scripttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"stsvectors": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	p := scripttest.Params("testdata/script")
	p.Setup = func(env *testscript.Env) error {
		return scripttest.Copy(env, "sts-tokens.json", "../../vectors/sts-tokens.json")
	}
	testscript.Run(t, p)
}
