package warrant_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

func signer(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func line(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }

func sample(t testing.TB) warrant.Warrant {
	t.Helper()
	x, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), bytes.Repeat([]byte{5}, 48))
	if err != nil {
		t.Fatal(err)
	}
	tx, err := ssh.NewPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return warrant.Warrant{
		Unit: warrant.Unit{
			ESN: "0123-4567-89AB", ModuleID: "12345678", FirmwareID: "STS64V10", HardwareID: "TSM500E1",
			UnitKey: line(signer(t, 1).PublicKey()), EncryptionKey: base64.StdEncoding.EncodeToString(x.PublicKey().Bytes()),
		},
		Features: licensing.STSVending, TransactionKey: line(tx), Issued: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
	}
}

func TestWarrantRoundTrip(t *testing.T) {
	t.Parallel()
	w, root := sample(t), signer(t, 9)
	file, err := warrant.Sign(w, root)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := warrant.Read(file, root.PublicKey()); err != nil || got != w {
		t.Errorf("%+v became %+v, %v", w, got, err)
	}
	if got, err := warrant.Inspect(file); err != nil || got != w {
		t.Errorf("%+v became %+v, %v", w, got, err)
	}
	if _, err := warrant.Read(file, signer(t, 8).PublicKey()); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("another root: %v", err)
	}
	edited := bytes.Replace(file, []byte("STSVending"), []byte("STSEA11"), 1)
	if _, err := warrant.Read(edited, root.PublicKey()); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("edited: %v", err)
	}
	if err := w.Matches(w.ESN, w.UnitKey); err != nil {
		t.Error(err)
	}
	if err := w.Matches("FFFF-FFFF-FFFF", w.UnitKey); !errkind.Is(err, errkind.Refused) {
		t.Errorf("another unit: %v", err)
	}
	if err := w.Matches(w.ESN, line(signer(t, 2).PublicKey())); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("another unit key: %v", err)
	}
}

func TestRequestMustBeSignedByItsOwnKey(t *testing.T) {
	t.Parallel()
	r := warrant.Request{Unit: sample(t).Unit, Made: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	file, err := warrant.SignRequest(r, signer(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := warrant.ReadRequest(file); err != nil || got != r {
		t.Errorf("%+v became %+v, %v", r, got, err)
	}
	stolen, err := warrant.SignRequest(r, signer(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := warrant.ReadRequest(stolen); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("a request for somebody else's key: %v", err)
	}
}

func TestBadWarrants(t *testing.T) {
	t.Parallel()
	root := signer(t, 9)
	for what, change := range map[string]func(*warrant.Warrant){
		"ESN":             func(w *warrant.Warrant) { w.ESN = "0123456789AB" },
		"unit key":        func(w *warrant.Warrant) { w.UnitKey = "ssh-ed25519 x" },
		"encryption key":  func(w *warrant.Warrant) { w.EncryptionKey = "x" },
		"transaction key": func(w *warrant.Warrant) { w.TransactionKey = w.UnitKey },
		"two lines":       func(w *warrant.Warrant) { w.HardwareID = "a\nFeatures: all" },
	} {
		w := sample(t)
		change(&w)
		file, err := warrant.Sign(w, root)
		if err == nil && what == "two lines" { // one field of two lines, no second field
			if got, err := warrant.Read(file, root.PublicKey()); err != nil || got.Features != w.Features {
				t.Errorf("%s: %+v, %v", what, got, err)
			}
			continue
		}
		if !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	w := sample(t)
	file, err := warrant.Sign(w, root)
	if err != nil {
		t.Fatal(err)
	}
	message, _, err := armor.Split(file)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"extra field":      string(message) + "Note: x\n",
		"word contradicts": strings.Replace(string(message), "Word: 01000000", "Word: FFFFFFFF", 1),
		"features as word": strings.Replace(string(message), "Features: STSVending", "Features: 01000000", 1),
		"other title":      strings.Replace(string(message), "tesserae warrant", "tesserae licence", 1),
	} {
		signed, err := armor.Sign([]byte(text), root, warrant.Namespace)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := warrant.Read(signed, root.PublicKey()); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	file, err := warrant.Sign(sample(f), signer(f, 9))
	if err != nil {
		f.Fatal(err)
	}
	message, signature, err := armor.Split(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message)
	// Inspect does not verify: any well-formed signature lets the text through.
	f.Fuzz(func(t *testing.T, message []byte) {
		w, err := warrant.Inspect(append(bytes.Clone(message), signature...))
		if err != nil {
			return
		}
		again, err := warrant.Sign(w, signer(t, 9))
		if err != nil {
			t.Fatalf("%q was accepted but cannot be made: %v", message, err)
		}
		if text, _, err := armor.Split(again); err != nil || !bytes.Equal(message, text) {
			t.Fatalf("%q prints as %q (%v)", message, text, err)
		}
	})
}
