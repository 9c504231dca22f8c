// Package sealed encrypts values at rest: AES-256-GCM under keys derived by
// HKDF-SHA256, each box bound to the place it belongs to.
//
// # Box
//
//	version (1) || nonce (24) || ciphertext || tag (16)
//
// The nonce is random. Its first half selects a one-message AES key (the
// XAES-256-GCM construction: two blocks of the NIST SP 800-108 counter KDF over
// CMAC), its second half is the GCM nonce, so that one Key may seal without a
// practical limit on the number of messages.
//
// # Associated data
//
// The caller names the place of a value (bucket and key, file, partition). A
// box moved elsewhere does not open. Place encodes names without ambiguity.
//
// # Key commitment
//
// AES-GCM does not commit to its key: one box may be built that opens under
// two keys known to its maker. No key here is ever chosen by somebody else, so
// boxes carry no commitment of their own; a file that holds many boxes stores
// Commitment once and compares it before it opens the first box, which also
// turns a wrong key into a plain message instead of a damaged value.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// KeySize is the least length of the secret a Key is derived from, and the
	// length of what Derive makes.
	KeySize = 32
	// Overhead is how much longer a box is than its plaintext.
	Overhead = 1 + nonceSize + tagSize
	// IDSize is the length of a box's ID.
	IDSize = nonceSize + tagSize

	version   = 1
	nonceSize = 24
	tagSize   = 16
	half      = nonceSize / 2
)

// Key seals and opens boxes. It is safe for concurrent use.
type Key struct {
	block      cipher.Block // the long-lived key, used only to derive
	k1         [aes.BlockSize]byte
	commitment [32]byte
}

// New derives the key for one purpose from secret. Purposes are fixed strings,
// e.g. "tesserae store values v1"; different purposes give unrelated keys.
func New(secret []byte, purpose string) (*Key, error) {
	if len(secret) < KeySize {
		return nil, errkind.Errorf(errkind.Invalid, "sealing key of %d bytes: at least %d are needed", len(secret), KeySize)
	}
	raw, err := hkdf.Key(sha256.New, secret, nil, "tesserae sealed key\x00"+purpose, KeySize)
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "derive %s: %w", purpose, err)
	}
	defer clear(raw)
	commitment, err := hkdf.Key(sha256.New, raw, nil, "tesserae sealed commitment", 32)
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "derive %s: %w", purpose, err)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "derive %s: %w", purpose, err)
	}
	k := &Key{block: block}
	copy(k.commitment[:], commitment)
	k.k1 = subkey(block)
	return k, nil
}

// Derive makes KeySize bytes for another algorithm (a MAC, a signature seed)
// from the same secret; label as purpose in New.
func Derive(secret []byte, label string) ([]byte, error) {
	if len(secret) < KeySize {
		return nil, errkind.Errorf(errkind.Invalid, "key of %d bytes: at least %d are needed", len(secret), KeySize)
	}
	out, err := hkdf.Key(sha256.New, secret, nil, "tesserae derived\x00"+label, KeySize)
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "derive %s: %w", label, err)
	}
	return out, nil
}

// Commitment identifies the key without saying anything about it.
func (k *Key) Commitment() []byte { return append([]byte(nil), k.commitment[:]...) }

// CheckCommitment compares a stored commitment with the key's.
func (k *Key) CheckCommitment(stored []byte) error {
	if subtle.ConstantTimeCompare(stored, k.commitment[:]) != 1 {
		return errkind.Errorf(errkind.Integrity, "the key is not the one this data was sealed with")
	}
	return nil
}

// Seal appends the box of plaintext to dst. place is bound to it, not stored.
func (k *Key) Seal(dst, plaintext, place []byte) []byte {
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand ends the process instead
	dst = append(dst, version)
	dst = append(dst, nonce[:]...)
	return k.aead(nonce[:half]).Seal(dst, nonce[half:], plaintext, place)
}

// Open appends the plaintext of box to dst. The error is of kind Integrity.
func (k *Key) Open(dst, box, place []byte) ([]byte, error) {
	return k.open(dst, box, place)
}

// OpenInPlace returns the plaintext of box, which it overwrites.
func (k *Key) OpenInPlace(box, place []byte) ([]byte, error) {
	if len(box) < Overhead {
		return k.open(nil, box, place)
	}
	return k.open(box[1+nonceSize:1+nonceSize], box, place)
}

func (k *Key) open(dst, box, place []byte) ([]byte, error) {
	if len(box) < Overhead || box[0] != version {
		return nil, errkind.Errorf(errkind.Integrity, "sealed value is truncated or of an unknown version")
	}
	nonce, rest := box[1:1+nonceSize], box[1+nonceSize:]
	out, err := k.aead(nonce[:half]).Open(dst, nonce[half:], rest, place)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "sealed value does not open: it was changed, moved, or sealed with another key")
	}
	return out, nil
}

// ID is what distinguishes one sealing from every other: its nonce and tag. It
// is nil if box is too short to be one.
func ID(box []byte) []byte {
	if len(box) < Overhead {
		return nil
	}
	id := make([]byte, 0, IDSize)
	id = append(id, box[1:1+nonceSize]...)
	return append(id, box[len(box)-tagSize:]...)
}

// Place encodes names so that no two lists of names give the same bytes.
func Place(names ...[]byte) []byte {
	n := 0
	for _, s := range names {
		n += 4 + len(s)
	}
	out := make([]byte, 0, n)
	for _, s := range names {
		out = binary.BigEndian.AppendUint32(out, uint32(len(s)))
		out = append(out, s...)
	}
	return out
}

// subkey is CMAC's K1 for block.
func subkey(block cipher.Block) (k1 [aes.BlockSize]byte) {
	var l [aes.BlockSize]byte
	block.Encrypt(l[:], l[:])
	var carry byte
	for i := len(l) - 1; i >= 0; i-- {
		k1[i] = l[i]<<1 | carry
		carry = l[i] >> 7
	}
	k1[len(k1)-1] ^= 0x87 & -carry
	return k1
}

// aead is AES-256-GCM under the one-message key of the nonce's first half.
func (k *Key) aead(prefix []byte) cipher.AEAD {
	var key [KeySize]byte
	for i := range 2 {
		m := key[i*aes.BlockSize : (i+1)*aes.BlockSize]
		m[1], m[2] = byte(i+1), 'X'
		copy(m[4:], prefix)
		subtle.XORBytes(m, m, k.k1[:])
		k.block.Encrypt(m, m)
	}
	block, err := aes.NewCipher(key[:])
	if err != nil { // the length is right by construction
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}
