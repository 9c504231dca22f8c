package keyload

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const pemPublicKey = "PUBLIC KEY"

// ParseRoot reads an approval root's public key: PEM, ECDSA on P-384.
func ParseRoot(text string) (*ecdsa.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != pemPublicKey {
		return nil, errkind.Errorf(errkind.Invalid, "this is not an approval root: wanted is a PEM file with a %s", pemPublicKey)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errkind.Errorf(errkind.Invalid, "the approval root's file holds more than one key")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "approval root: %w", err)
	}
	root, ok := key.(*ecdsa.PublicKey)
	if !ok || root.Curve != elliptic.P384() {
		return nil, errkind.Errorf(errkind.Invalid, "the approval root is not an ECDSA key on the curve P-384")
	}
	return root, nil
}

// FormatRoot is the form that ParseRoot reads.
func FormatRoot(root *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(root)
	if err != nil {
		return "", errkind.Errorf(errkind.Invalid, "approval root: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: pemPublicKey, Bytes: der})), nil
}

// RootFingerprint is the SHA-256 of the root's DER form in hex, by which people
// compare it: openssl pkey -pubin -outform DER | sha256sum.
func RootFingerprint(root *ecdsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(root)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
