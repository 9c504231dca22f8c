package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// asHSMD makes the test binary be hsmd, for tests that kill it.
const asHSMD = "TESSERAE_TEST_AS_HSMD"

func TestMain(m *testing.M) {
	if os.Getenv(asHSMD) != "" {
		main()
	}
	testscript.Main(m, map[string]func(){"hsmd": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"waitfor": waitFor,
			"warrant": makeWarrant,
			"private": checkPrivate,
		},
	})
}
