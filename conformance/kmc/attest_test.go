package kmc_test

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t *testing.T, message string, by ssh.Signer, namespace string) string {
	t.Helper()
	file, err := armor.Sign([]byte(message), by, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return string(file)
}

// publicKeyFile is a module's public key with the unit's and the maker's proof.
func publicKeyFile(t *testing.T, record string, unit, maker ssh.Signer) string {
	t.Helper()
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(unit.PublicKey())))
	warrant, err := armor.Document{Title: "tesserae warrant", Fields: []armor.Field{
		{Name: "ESN", Value: "0A1B-2C3D-4E5F"}, {Name: "Unit-Key", Value: line}}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	signature := strings.TrimPrefix(sign(t, record+"\n", unit, "tesserae-sm-pubkey"), record+"\n")
	return keyload.Armor(keyload.BlockSMPublicKey, record) + signature + sign(t, string(warrant), maker, "tesserae-warrant")
}

func moduleRecord(t *testing.T, id string) string {
	t.Helper()
	key, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyload.SMPublicKey{ModuleID: id, SPN: 1, HardwareID: "TSM500I", FirmwareID: "STS64V10",
		Curve: keyload.CurveName, Point: key.PublicKey().Bytes()}.Record().String()
}

// A KMC that pins the modules' maker takes only keys that lead to him.
func TestAttestedModules(t *testing.T) {
	t.Parallel()
	k, _ := newKMC(t)
	maker, unit, stranger := newSigner(t), newSigner(t), newSigner(t)
	record, other := moduleRecord(t, "89051616"), moduleRecord(t, "89051616")
	good := publicKeyFile(t, record, unit, maker)
	foreign := publicKeyFile(t, record, unit, stranger)
	_, proof, _ := strings.Cut(good, "-----END STS SM PUBKEY-----\n")
	_, foreignWarrant, _ := strings.Cut(publicKeyFile(t, record, stranger, maker), "tesserae warrant\n")
	upTo, _, _ := strings.Cut(good, "tesserae warrant\n")
	for name, text := range map[string]string{
		"bare record":              record + "\n",
		"armored record":           keyload.Armor(keyload.BlockSMPublicKey, record),
		"another maker":            foreign,
		"another record":           keyload.Armor(keyload.BlockSMPublicKey, other) + proof,
		"another unit's signature": upTo + "tesserae warrant\n" + foreignWarrant,
		"changed ESN":              strings.Replace(good, "0A1B", "0A1C", 1),
		"no signature":             keyload.Armor(keyload.BlockSMPublicKey, record) + good[strings.Index(good, "tesserae warrant\n"):],
		"cut off":                  good[:len(good)-30],
	} {
		if m, err := k.AddAttestedModule(text, maker.PublicKey()); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if n := len(k.Modules()); n != 0 {
		t.Errorf("%d modules are known", n)
	}
	for name, text := range map[string]string{"as it is": good, "by e-mail": "Hello,\r\n\r\n" + strings.ReplaceAll(good, "\n", "\r\n")} {
		if m, err := k.AddAttestedModule(text, maker.PublicKey()); err != nil || m.Unit != "0A1B-2C3D-4E5F" || m.ID != "89051616" {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if m, err := k.AddModule(good); err != nil || m.Unit != "" {
		t.Errorf("without a maker: %+v, %v", m, err)
	}
}
