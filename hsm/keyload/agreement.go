package keyload

import (
	"bytes"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Scheme is the key-agreement scheme: full unified model, C(2e,2s), on P-384.
const Scheme = "C22"

// CurveName is the only curve.
const CurveName = "P384"

const (
	scalarSize = 48
	pointSize  = 1 + 2*scalarSize
	aesKeySize = 24
)

// NewPrivateKey draws a P-384 private key from random.
func NewPrivateKey(random io.Reader) (*ecdh.PrivateKey, error) {
	scalar, err := NewScalar(random)
	if err != nil {
		return nil, err
	}
	defer clear(scalar)
	return ecdh.P384().NewPrivateKey(scalar)
}

// NewScalar draws what a P-384 private key is made of, without the point that
// belongs to it.
func NewScalar(random io.Reader) ([]byte, error) {
	scalar := make([]byte, scalarSize)
	for range 64 {
		if _, err := io.ReadFull(random, scalar); err != nil {
			return nil, fmt.Errorf("draw a private key: %w", err)
		}
		if CheckScalar(scalar) == nil {
			return scalar, nil
		}
	}
	return nil, errors.New("draw a private key: the random source gives no number in range")
}

// CheckScalar refuses what no P-384 private key can be made of.
func CheckScalar(scalar []byte) error {
	if len(scalar) != scalarSize {
		return fmt.Errorf("a private key has %d octets, not %d", scalarSize, len(scalar))
	}
	// Whether it is in range, 1 to the order less 1, is no secret of a key that is.
	order := elliptic.P384().Params().N.Bytes()
	if bytes.Compare(scalar, order) >= 0 || bytes.Equal(scalar, make([]byte, scalarSize)) {
		return errors.New("a private key is not between 1 and the curve's order")
	}
	return nil
}

// ParsePoint validates a public key in uncompressed form: it is on the curve
// and not the point at infinity. P-384 has cofactor 1, so this is full validation.
func ParsePoint(point []byte) (*ecdh.PublicKey, error) {
	if len(point) != pointSize {
		return nil, fmt.Errorf("a point has %d octets, not %d", pointSize, len(point))
	}
	return ecdh.P384().NewPublicKey(point)
}

// SMIdentity is ID_U, the module's name in the key derivation.
func SMIdentity(moduleID string, keyNumber int) string {
	return fmt.Sprintf("SMID;SMI%s;SPN%d", moduleID, keyNumber)
}

// KMCIdentity is ID_V, the KMC's name in the key derivation.
func KMCIdentity(kmc string, keyNumber int) string {
	return fmt.Sprintf("KMCID;KMC%s;KPN%d", kmc, keyNumber)
}

// Agreement is one run of the key agreement, seen from either side.
type Agreement struct {
	Request   Request
	QEV       *ecdh.PublicKey // the KMC's ephemeral key
	Static    *ecdh.PrivateKey
	Ephem     *ecdh.PrivateKey // this side's
	Peer      *ecdh.PublicKey  // the other side's static key
	PeerEphem *ecdh.PublicKey  // the other side's ephemeral key
}

// SessionKeys are the keys of one agreement, 24 octets each.
type SessionKeys struct {
	Confirm, KEK, KAK []byte
}

// Zeroise overwrites the keys.
func (k *SessionKeys) Zeroise() {
	clear(k.Confirm)
	clear(k.KEK)
	clear(k.KAK)
}

// Keys derives the session's keys.
func (a Agreement) Keys() (SessionKeys, error) {
	ze, err := a.Ephem.ECDH(a.PeerEphem)
	if err != nil {
		return SessionKeys{}, fmt.Errorf("ephemeral agreement: %w", err)
	}
	defer clear(ze)
	zs, err := a.Static.ECDH(a.Peer)
	if err != nil {
		return SessionKeys{}, fmt.Errorf("static agreement: %w", err)
	}
	defer clear(zs)
	z := append(append(make([]byte, 0, 2*scalarSize), ze...), zs...)
	defer clear(z)
	return deriveKeys(z, a.context()), nil
}

// context binds the keys to both names, the time, both ephemeral keys and the
// whole request.
func (a Agreement) context() []byte {
	digest := sha512.Sum384([]byte(a.Request.Text()))
	return lengthPrefixed(nil,
		[]byte(a.Request.smIdentity()), []byte(a.Request.kmcIdentity()), []byte(a.Request.TVP),
		a.Request.QEU, a.QEV.Bytes(), digest[:])
}

// deriveKeys is SP 800-56C two-step derivation: extract with HMAC-SHA-384,
// expand with SP 800-108 in counter mode.
func deriveKeys(z, context []byte) SessionKeys {
	kdk := extract(z)
	defer clear(kdk)
	const bits = 3 * aesKeySize * 8
	var out []byte
	for i := uint32(1); len(out)*8 < bits; i++ {
		mac := hmac.New(sha512.New384, kdk)
		mac.Write(binary.BigEndian.AppendUint32(nil, i))
		mac.Write([]byte("STS-KEK.1"))
		mac.Write([]byte{0})
		mac.Write(context)
		mac.Write(binary.BigEndian.AppendUint32(nil, bits))
		out = mac.Sum(out)
	}
	keys := SessionKeys{
		Confirm: append([]byte(nil), out[:aesKeySize]...),
		KEK:     append([]byte(nil), out[aesKeySize:2*aesKeySize]...),
		KAK:     append([]byte(nil), out[2*aesKeySize:3*aesKeySize]...),
	}
	clear(out)
	return keys
}

func extract(z []byte) []byte {
	mac := hmac.New(sha512.New384, make([]byte, 128))
	mac.Write(z)
	return mac.Sum(nil)
}

// ConfirmationTag is the KMC's key confirmation over the response's fields.
func (a Agreement) ConfirmationTag(confirm []byte, response Record) ([]byte, error) {
	data := lengthPrefixed([]byte("KC_1_V"),
		[]byte(a.Request.kmcIdentity()), []byte(a.Request.smIdentity()), a.QEV.Bytes(), a.Request.QEU,
		[]byte(response.Before("MAC").Body()))
	return CMAC(confirm, data)
}

// VerifyTag compares two MACs without telling where they differ.
func VerifyTag(got, want []byte) bool { return subtle.ConstantTimeCompare(got, want) == 1 }

// lengthPrefixed appends each part after its 16-bit length.
func lengthPrefixed(dst []byte, parts ...[]byte) []byte {
	for _, p := range parts {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p)))
		dst = append(dst, p...)
	}
	return dst
}
