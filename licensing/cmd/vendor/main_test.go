package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"vendor": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"request": makeRequest, "mode": checkMode},
	})
}

// makeRequest writes a unit's identity request: request FILE ESN.
func makeRequest(ts *testscript.TestScript, _ bool, args []string) {
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)))
	ts.Check(err)
	x, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{3}, 32))
	ts.Check(err)
	file, err := warrant.SignRequest(warrant.Request{
		Unit: warrant.Unit{
			ESN: args[1], ModuleID: "12345678", FirmwareID: "STS64V10", HardwareID: "TSM500E1",
			UnitKey:       strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
			EncryptionKey: base64.StdEncoding.EncodeToString(x.PublicKey().Bytes()),
		},
		Made: time.Now(),
	}, signer)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), file, 0o600))
}

// checkMode checks that only its owner can read a file: mode FILE.
func checkMode(ts *testscript.TestScript, _ bool, args []string) {
	fi, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if fi.Mode().Perm() != 0o600 {
		ts.Fatalf("%s has mode %v", args[0], fi.Mode())
	}
}
