package device_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

func p384(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
}

func TestWarrant(t *testing.T) {
	t.Parallel()
	r, other := newRig(t), newRig(t)
	m, impostor := newMaker(t), newMaker(t)

	foreign := m.warrant(t, r, func(w *warrant.Warrant) { w.ESN = "FFFF-FFFF-FFFF" })
	want(t, r.tryInstall(foreign, nil), errkind.Refused)
	want(t, r.tryInstall(m.warrant(t, other, nil), nil), errkind.Integrity) // same ESN, another unit's key
	want(t, r.tryInstall(m.warrant(t, r, func(w *warrant.Warrant) { w.ModuleID = "00000001" }), nil), errkind.Integrity)
	want(t, r.tryInstall(impostor.warrant(t, r, nil), m.root.PublicKey()), errkind.Integrity)
	if id, err := r.client.Identity(t.Context()); err != nil || id.Warrant != "" || id.MakerRoot != "" {
		t.Errorf("a refused warrant changed %+v, %v", id, err)
	}

	good := m.warrant(t, r, nil)
	if err := r.tryInstall(good, m.root.PublicKey()); err != nil {
		t.Fatal(err)
	}
	id, err := r.client.Identity(t.Context())
	if err != nil || id.Warrant != string(good) {
		t.Errorf("identity %+v, %v", id, err)
	}
	if root, err := warrant.ParseKey(id.MakerRoot); err != nil || ssh.FingerprintSHA256(root) != ssh.FingerprintSHA256(m.root.PublicKey()) {
		t.Errorf("pinned %q, %v", id.MakerRoot, err)
	}
	// The first maker is the maker.
	want(t, r.tryInstall(impostor.warrant(t, r, nil), nil), errkind.Integrity)
	want(t, r.tryInstall(impostor.warrant(t, r, nil), impostor.root.PublicKey()), errkind.Integrity)
	r.install(m.warrant(t, r, nil))
}
