package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

func TestNewKeysAreThoseOfTheStandardLibrary(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), ed25519.SeedSize, ed25519.SeedSize).Draw(t, "seed")
		key, err := newKeyFromSeed(seed)
		if err != nil || !key.Equal(ed25519.NewKeyFromSeed(seed)) {
			t.Errorf("%x became %x, %v", seed, key, err)
		}
	})
}

func BenchmarkNewKeyFromSeed(b *testing.B) {
	seed := make([]byte, ed25519.SeedSize)
	for b.Loop() {
		if _, err := newKeyFromSeed(seed); err != nil {
			b.Fatal(err)
		}
	}
}

// Only a certificate that the unit would issue today is taken from the store.
func TestAStoredCertificateIsAcceptedOnlyAsItWouldBeIssued(t *testing.T) {
	t.Parallel()
	const principal = "esn/uuid/monitor"
	unit, seed := newKey(t), bytes.Repeat([]byte{7}, ed25519.SeedSize)
	private := ed25519.NewKeyFromSeed(seed)
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	issue := func(change func(*ssh.Certificate), by ssh.Signer) []byte {
		c := &ssh.Certificate{Key: public, CertType: ssh.HostCert, ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity}
		change(c)
		if err := c.SignCert(rand.Reader, by); err != nil {
			t.Fatal(err)
		}
		return c.Marshal()
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherPublic, err := ssh.NewPublicKey(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		raw  []byte
		want bool
	}{
		"as issued":             {issue(func(*ssh.Certificate) {}, unit), true},
		"by another unit":       {issue(func(*ssh.Certificate) {}, newKey(t)), false},
		"for another principal": {issue(func(c *ssh.Certificate) { c.ValidPrincipals[0] += "x" }, unit), false},
		"for everybody":         {issue(func(c *ssh.Certificate) { c.ValidPrincipals = nil }, unit), false},
		"for a while":           {issue(func(c *ssh.Certificate) { c.ValidBefore = 1 << 40 }, unit), false},
		"from a date on":        {issue(func(c *ssh.Certificate) { c.ValidAfter = 1 }, unit), false},
		"for a user":            {issue(func(c *ssh.Certificate) { c.CertType = ssh.UserCert }, unit), false},
		"of another kind":       {issue(func(c *ssh.Certificate) { c.Key = otherPublic }, unit), false},
		"a bare key":            {public.Marshal(), false},
		"nothing":               {nil, false},
	} {
		k := hostKey{name: "monitor", seed: seed}
		if got := k.accept(tc.raw, unit.PublicKey(), principal); got != tc.want {
			t.Errorf("%s: accepted %v", name, got)
		}
		if tc.want != (k.cert != nil) || tc.want != k.private.Equal(private) {
			t.Errorf("%s: certificate %v, private key of %d bytes", name, k.cert, len(k.private))
		}
	}
}

func TestCheckKeysFindsACertificateOfAnotherKey(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	p := &partition{private: map[string]ed25519.PrivateKey{"monitor": key}}
	if err := p.checkKeys(); err != nil {
		t.Error(err)
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	p.private["monitor"] = ed25519.PrivateKey(append(bytes.Clone(key.Seed()), other[ed25519.SeedSize:]...))
	if p.checkKeys() == nil {
		t.Error("not found")
	}
}

// The unit certifies a host key once: a later start presents the same certificate.
func TestARestartKeepsTheHostCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	presented := func() (out []byte) {
		p := r.launch()
		p.mustBeReady()
		defer p.stop(vcmcontrol.Stop{Force: true})
		nc, err := net.DialTimeout("tcp", r.address(vcmcontrol.ServiceSSHAdmin), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _, _, _ = ssh.NewClientConn(nc, "", &ssh.ClientConfig{HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			out = key.Marshal()
			return nil
		}}) // nobody is let in without a key
		return out
	}
	first := presented()
	parsed, err := ssh.ParsePublicKey(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := parsed.(*ssh.Certificate); !ok {
		t.Fatalf("a %s was presented", parsed.Type())
	}
	if again := presented(); !bytes.Equal(first, again) {
		t.Error("another certificate after a restart")
	}
}
