package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"

	crand "crypto/rand"
)

// waitFor waits until a unix socket answers: waitfor PATH.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	for range 500 {
		if c, err := net.Dial("unixpacket", path); err == nil {
			ts.Check(c.Close())
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("nothing listens on %s", path)
}

// makeWarrant answers an identity request: warrant MAKER REQUEST OUT [ESN].
func makeWarrant(ts *testscript.TestScript, _ bool, args []string) {
	seed := sha256.Sum256([]byte(args[0]))
	root, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
	ts.Check(err)
	req, err := warrant.ReadRequest([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	if len(args) > 3 {
		req.ESN = args[3]
	}
	k, err := ecdsa.GenerateKey(elliptic.P384(), crand.Reader)
	ts.Check(err)
	pub, err := ssh.NewPublicKey(&k.PublicKey)
	ts.Check(err)
	file, err := warrant.Sign(warrant.Warrant{
		Unit: req.Unit, Features: licensing.STSVending | licensing.HSMSpeed2, Issued: time.Now(),
		TransactionKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))),
	}, root)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), file, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pub"), ssh.MarshalAuthorizedKey(root.PublicKey()), 0o600))
}

// checkPrivate checks that the socket's permissions keep others out: private PATH.
func checkPrivate(ts *testscript.TestScript, _ bool, args []string) {
	fi, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if fi.Mode().Perm() != 0o600 {
		ts.Fatalf("socket mode %v", fi.Mode())
	}
	c, err := fdrpc.Dial(context.Background(), ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(c.Close())
}
