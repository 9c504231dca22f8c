package keyload

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"math/big"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Types of the public-key records.
const (
	TypeKMCPublicKey = "KMC.PUBKEY.1"
	TypeSMPublicKey  = "SM.PUBKEY.1"
)

// KMCPublicKey is a KMC's static public key with its validity.
type KMCPublicKey struct {
	KMC       string
	KPN       int       // the key's number
	Activates time.Time // usable from this day on
	Expires   time.Time // the last day on which it is usable
	Curve     string
	Point     []byte // uncompressed
	Signature []byte // by the approval root over the record up to here; may be absent
}

// Record returns the key's KMC.PUBKEY.1 record.
func (k KMCPublicKey) Record() Record {
	return NewRecord(TypeKMCPublicKey, "KMC", k.KMC, "KPN", strconv.Itoa(k.KPN),
		"ACT", k.Activates.UTC().Format(Date), "EXP", k.Expires.UTC().Format(Date),
		"CRV", k.Curve, "QSV", upperHex(k.Point), "SIG", upperHex(k.Signature))
}

// Text returns the key as its KMC publishes it.
func (k KMCPublicKey) Text() string { return Armor(BlockKMCPublicKey, k.Record().String()) }

// ParseKMCPublicKey reads a KMC.PUBKEY.1 record. It does not judge the curve,
// the point, the signature or the dates.
func ParseKMCPublicKey(record string) (KMCPublicKey, error) {
	rec, err := ParseRecord(record)
	if err != nil {
		return KMCPublicKey{}, err
	}
	if err := rec.ofType(TypeKMCPublicKey, "KMC", "KPN", "ACT", "EXP", "CRV", "QSV", "SIG"); err != nil {
		return KMCPublicKey{}, err
	}
	r := reader{rec: rec}
	k := KMCPublicKey{
		KMC: r.ident("KMC"), KPN: r.number("KPN", 1, 999999),
		Activates: r.time("ACT", Date), Expires: r.time("EXP", Date),
		Curve: r.text("CRV"), Point: r.hex("QSV", 0),
	}
	if rec.Get("SIG") != "" {
		k.Signature = r.hex("SIG", signatureSize)
	}
	return k, r.err
}

// ParseKMCPublicKeyText reads the text file that a KMC publishes, or its bare record.
func ParseKMCPublicKeyText(text string) (KMCPublicKey, error) {
	rec, err := dearmorOne(BlockKMCPublicKey, text)
	if err != nil {
		return KMCPublicKey{}, err
	}
	k, err := ParseKMCPublicKey(rec.String())
	if err != nil {
		return KMCPublicKey{}, errkind.Errorf(errkind.Invalid, "KMC public key: %w", err)
	}
	return k, nil
}

// Key validates the point.
func (k KMCPublicKey) Key() (*ecdh.PublicKey, error) { return ParsePoint(k.Point) }

// ExpiresAt is the first instant at which the key is expired: the end of its last day.
func (k KMCPublicKey) ExpiresAt() time.Time { return k.Expires.AddDate(0, 0, 1) }

// Sign sets the approval signature.
func (k *KMCPublicKey) Sign(root *ecdsa.PrivateKey) error {
	k.Signature = nil
	sig, err := SignRecord(root, k.Record())
	k.Signature = sig
	return err
}

// ApprovedBy reports whether the key carries a valid approval signature by root.
func (k KMCPublicKey) ApprovedBy(root *ecdsa.PublicKey) bool {
	return root != nil && VerifyRecord(root, k.Record().Before("SIG"), k.Signature)
}

// SMPublicKey is a module's static public key; its maker sends it to the KMC once.
type SMPublicKey struct {
	ModuleID   string
	SPN        int
	HardwareID string
	FirmwareID string
	Curve      string
	Point      []byte
	Signature  []byte // by the maker; may be absent
}

// Record returns the module's SM.PUBKEY.1 record.
func (k SMPublicKey) Record() Record {
	return NewRecord(TypeSMPublicKey, "SMI", k.ModuleID, "SPN", strconv.Itoa(k.SPN),
		"HWI", k.HardwareID, "FWI", k.FirmwareID, "CRV", k.Curve, "QSU", upperHex(k.Point),
		"SIG", upperHex(k.Signature))
}

// Text returns the key between its guards.
func (k SMPublicKey) Text() string { return Armor(BlockSMPublicKey, k.Record().String()) }

// ParseSMPublicKeyText reads a module's public key, with or without its guards.
func ParseSMPublicKeyText(text string) (SMPublicKey, error) {
	rec, err := dearmorOrBare(BlockSMPublicKey, TypeSMPublicKey, text)
	if err != nil {
		return SMPublicKey{}, err
	}
	r := reader{rec: rec}
	r.err = rec.ofType(TypeSMPublicKey, "SMI", "SPN", "HWI", "FWI", "CRV", "QSU", "SIG")
	k := SMPublicKey{
		ModuleID: r.digits("SMI", 8), SPN: r.number("SPN", 1, 999999),
		HardwareID: r.ident("HWI"), FirmwareID: r.ident("FWI"), Curve: r.text("CRV"), Point: r.hex("QSU", pointSize),
	}
	if rec.Get("SIG") != "" {
		k.Signature = r.hex("SIG", signatureSize)
	}
	if r.err == nil && k.Curve != CurveName {
		r.fail("CRV", "is not %s", CurveName)
	}
	if r.err == nil {
		if _, err := ParsePoint(k.Point); err != nil {
			r.fail("QSU", "is not a point of the curve")
		}
	}
	if r.err != nil {
		return SMPublicKey{}, errkind.Errorf(errkind.Invalid, "module public key: %w", r.err)
	}
	return k, nil
}

// signatureSize is r and s of an ECDSA signature on P-384.
const signatureSize = 2 * scalarSize

// SignRecord signs a record's body with ECDSA on P-384 and SHA-384; the
// signature is r and s, 48 octets each.
func SignRecord(key *ecdsa.PrivateKey, rec Record) ([]byte, error) { return signText(key, rec.Body()) }

// VerifyRecord verifies SignRecord's signature.
func VerifyRecord(key *ecdsa.PublicKey, rec Record, signature []byte) bool {
	return verifyText(key, rec.Body(), signature)
}

func signText(key *ecdsa.PrivateKey, text string) ([]byte, error) {
	if key.Curve != elliptic.P384() {
		return nil, errors.New("the signing key is not on P-384")
	}
	digest := sha512.Sum384([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	sig := make([]byte, signatureSize)
	r.FillBytes(sig[:scalarSize])
	s.FillBytes(sig[scalarSize:])
	return sig, nil
}

func verifyText(key *ecdsa.PublicKey, text string, sig []byte) bool {
	if key == nil || key.Curve != elliptic.P384() || len(sig) != signatureSize {
		return false
	}
	digest := sha512.Sum384([]byte(text))
	return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(sig[:scalarSize]), new(big.Int).SetBytes(sig[scalarSize:]))
}
