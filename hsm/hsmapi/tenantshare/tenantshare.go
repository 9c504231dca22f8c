// Package tenantshare makes restrict-startup cryptographic.
//
// The tenant keeps a secret, an X25519 private key. Its public half travels in
// the create request, and the unit encrypts the partition key to it (HPKE, RFC
// 9180) before sealing it under its own root: from then on the unit cannot open
// the partition by itself, and a provider with all his files cannot either.
//
// A start request carries the secret, encrypted to the unit's own key, which
// the maker's warrant certifies, and bound to one unit, one VCM and one period
// of validity. The unit uses it and forgets it.
package tenantshare

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Secret is the tenant's half: 32 bytes that only he stores.
type Secret []byte

// Generate makes a secret.
func Generate() (Secret, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return k.Bytes(), nil
}

// PublicKey is the share key that belongs into a create request.
func (s Secret) PublicKey() (string, error) {
	k, err := ecdh.X25519().NewPrivateKey(s)
	if err != nil {
		return "", errkind.Errorf(errkind.Invalid, "tenant share: %w", err)
	}
	return base64.StdEncoding.EncodeToString(k.PublicKey().Bytes()), nil
}

// CheckKey reports whether text is a share key or a unit's encryption key.
func CheckKey(text string) error {
	_, err := publicKey(text)
	return err
}

// Use is what one sealed share is good for.
type Use struct {
	ESN       string
	UUID      string
	NotBefore time.Time // to the second
	NotAfter  time.Time
}

func (u Use) info() []byte { return []byte("tesserae-start-share/1 " + u.ESN + " " + u.UUID) }

type payload struct {
	NotBefore int64  `json:"notBefore"`
	NotAfter  int64  `json:"notAfter"`
	Secret    []byte `json:"secret"`
}

// Seal encrypts the secret to the unit's encryption key for one use.
func Seal(unitKey string, s Secret, u Use) ([]byte, error) {
	pk, err := publicKey(unitKey)
	if err != nil {
		return nil, err
	}
	if _, err := s.PublicKey(); err != nil {
		return nil, err
	}
	p, err := json.Marshal(payload{u.NotBefore.Unix(), u.NotAfter.Unix(), s})
	if err != nil {
		return nil, err
	}
	defer clear(p)
	return hpke.Seal(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), u.info(), p)
}

// Open decrypts a sealed share with the unit's private key for the unit and VCM
// of esn and uuid and checks its validity at now.
func Open(unit *ecdh.PrivateKey, sealed []byte, esn, uuid string, now time.Time) (Secret, error) {
	sk, err := hpke.NewDHKEMPrivateKey(unit)
	if err != nil {
		return nil, err
	}
	p, err := hpke.Open(sk, hpke.HKDFSHA256(), hpke.AES256GCM(), Use{ESN: esn, UUID: uuid}.info(), sealed)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the start share was not made for this module and VCM %s", uuid)
	}
	defer clear(p)
	var in payload
	if err := json.Unmarshal(p, &in); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the start share is malformed")
	}
	from, until := time.Unix(in.NotBefore, 0).UTC(), time.Unix(in.NotAfter, 0).UTC()
	if now.Before(from) || now.After(until) {
		return nil, errkind.Errorf(errkind.Refused, "the start share is valid from %s to %s; the module's clock says %s",
			from.Format(time.RFC3339), until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return in.Secret, nil
}

// Wrap encrypts a partition key to the tenant's share key.
func Wrap(shareKey, uuid string, key []byte) ([]byte, error) {
	pk, err := publicKey(shareKey)
	if err != nil {
		return nil, err
	}
	return hpke.Seal(pk, hpke.HKDFSHA256(), hpke.AES256GCM(), wrapInfo(uuid), key)
}

// Unwrap is the inverse of Wrap with the tenant's secret.
func Unwrap(s Secret, uuid string, wrapped []byte) ([]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(s)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the start share is malformed")
	}
	sk, err := hpke.NewDHKEMPrivateKey(k)
	if err != nil {
		return nil, err
	}
	key, err := hpke.Open(sk, hpke.HKDFSHA256(), hpke.AES256GCM(), wrapInfo(uuid), wrapped)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the start share does not open VCM %s", uuid)
	}
	return key, nil
}

func wrapInfo(uuid string) []byte { return []byte("tesserae-partition-key/1 " + uuid) }

func publicKey(text string) (hpke.PublicKey, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != text {
		return nil, errkind.Errorf(errkind.Invalid, "X25519 key %.60q: not base64 in its one form", text)
	}
	pk, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "X25519 key %.60q: %w", text, err)
	}
	return hpke.NewDHKEMPublicKey(pk)
}
