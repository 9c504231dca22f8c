package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tesserae-hsm/tesserae/conformance/scripttest"
	"github.com/tesserae-hsm/tesserae/conformance/vending/standin"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"interop": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	p := scripttest.Params("testdata/script")
	p.Setup = func(env *testscript.Env) error {
		server := standin.Start(t)
		env.Setenv("ADDRESS", server.Address)
		if _, _, err := server.Files(env.WorkDir); err != nil {
			return err
		}
		return scripttest.Copy(env, "idl.thrift", "../../../vcm/prismtoken/idl/prismtoken1-TokenApi.thrift")
	}
	testscript.Run(t, p)
}
