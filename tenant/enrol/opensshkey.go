package enrol

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	//lint:ignore SA1019 OpenSSH's key format is defined with it
	"golang.org/x/crypto/blowfish"
	"golang.org/x/crypto/ssh"
)

// A private key is stored in OpenSSH's format. The SSH library always stretches
// the passphrase as one that a person has chosen, which takes a tenth of a
// second a key. A derived passphrase without protection P has nothing to be
// stretched, so it gets one round, and the format says so.
const (
	oneRound     = 1
	humanRounds  = 16 // ssh-keygen's
	saltSize     = 16
	hashSize     = 32
	opensshMagic = "openssh-key-v1\x00"
)

// rounds is how much a passphrase derived with these options is stretched.
func (p Protection) rounds() uint32 {
	if strings.Contains(p.Options, "P") {
		return humanRounds
	}
	return oneRound
}

// marshalKey returns private in OpenSSH's format, encrypted with passphrase.
func marshalKey(random io.Reader, private ed25519.PrivateKey, comment string, passphrase []byte, rounds uint32) ([]byte, error) {
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	var noise [saltSize + 4]byte
	if _, err := io.ReadFull(random, noise[:]); err != nil {
		return nil, err
	}
	salt, check := noise[:saltSize], binary.BigEndian.Uint32(noise[saltSize:])
	secret := ssh.Marshal(struct {
		Check1, Check2 uint32
		Type           string
		Public, Secret []byte
		Comment        string
	}{check, check, ssh.KeyAlgoED25519, private.Public().(ed25519.PublicKey), private, comment})
	for i := byte(1); len(secret)%aes.BlockSize != 0; i++ {
		secret = append(secret, i)
	}
	derived, err := bcryptKey(passphrase, salt, rounds, 32+aes.BlockSize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived[:32])
	if err != nil {
		return nil, err
	}
	cipher.NewCTR(block, derived[32:]).XORKeyStream(secret, secret)
	body := ssh.Marshal(struct {
		Cipher, KDF string
		Options     []byte
		Keys        uint32
		Public      []byte
		Secret      []byte
	}{"aes256-ctr", "bcrypt", ssh.Marshal(struct {
		Salt   []byte
		Rounds uint32
	}{salt, rounds}), 1, public.Marshal(), secret})
	return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: append([]byte(opensshMagic), body...)}), nil
}

// bcryptKey is bcrypt_pbkdf, the key derivation of OpenSSH's format.
func bcryptKey(passphrase, salt []byte, rounds uint32, size int) ([]byte, error) {
	blocks := (size + hashSize - 1) / hashSize
	key := make([]byte, blocks*hashSize)
	pass := sha512.Sum512(passphrase)
	for block := range blocks {
		// Each block's bytes are spread over the whole key.
		seed := sha512.Sum512(binary.BigEndian.AppendUint32(append([]byte{}, salt...), uint32(block+1)))
		hash, err := bcryptHash(pass[:], seed[:])
		if err != nil {
			return nil, err
		}
		sum := hash
		for range rounds - 1 {
			seed = sha512.Sum512(hash[:])
			if hash, err = bcryptHash(pass[:], seed[:]); err != nil {
				return nil, err
			}
			for i := range sum {
				sum[i] ^= hash[i]
			}
		}
		for i, b := range sum {
			key[i*blocks+block] = b
		}
	}
	return key[:size], nil
}

func bcryptHash(pass, salt []byte) (out [hashSize]byte, err error) {
	c, err := blowfish.NewSaltedCipher(pass, salt)
	if err != nil {
		return out, fmt.Errorf("bcrypt: %w", err)
	}
	for range 64 {
		blowfish.ExpandKey(salt, c)
		blowfish.ExpandKey(pass, c)
	}
	copy(out[:], "OxychromaticBlowfishSwatDynamite")
	for i := 0; i < hashSize; i += blowfish.BlockSize {
		for range 64 {
			c.Encrypt(out[i:i+blowfish.BlockSize], out[i:i+blowfish.BlockSize])
		}
	}
	for i := 0; i < hashSize; i += 4 { // words are little-endian in the result
		binary.LittleEndian.PutUint32(out[i:], binary.BigEndian.Uint32(out[i:]))
	}
	return out, nil
}
