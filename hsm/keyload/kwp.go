package keyload

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// ErrUnwrap is an unwrapped key whose integrity check failed.
var ErrUnwrap = errors.New("the wrapped key does not unwrap under this key-encryption key")

// kwpICV is the constant half of the alternative initial value of RFC 5649.
const kwpICV = 0xA65959A6

// maxWrap bounds the plaintext of a key wrap; the largest vending key has 20 octets.
const maxWrap = 512

// WrapKey wraps key under kek with AES key wrap with padding (SP 800-38F KWP,
// RFC 5649).
func WrapKey(kek, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(key) == 0 || len(key) > maxWrap {
		return nil, errors.New("the key to wrap has an impossible length")
	}
	padded := (len(key) + 7) / 8 * 8
	buf := make([]byte, 8+padded)
	binary.BigEndian.PutUint32(buf, kwpICV)
	binary.BigEndian.PutUint32(buf[4:], uint32(len(key)))
	copy(buf[8:], key)
	n := padded / 8
	if n == 1 {
		block.Encrypt(buf, buf)
		return buf, nil
	}
	var b [aes.BlockSize]byte
	defer clear(b[:])
	copy(b[:8], buf[:8])
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[8:], buf[8*i:])
			block.Encrypt(b[:], b[:])
			t := binary.BigEndian.Uint64(b[:8]) ^ uint64(n*j+i)
			binary.BigEndian.PutUint64(b[:8], t)
			copy(buf[8*i:8*i+8], b[8:])
		}
	}
	copy(buf[:8], b[:8])
	return buf, nil
}

// UnwrapKey undoes WrapKey; ErrUnwrap if wrapped was not made under kek.
func UnwrapKey(kek, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(wrapped)%8 != 0 || len(wrapped) < 16 || len(wrapped) > maxWrap+8 {
		return nil, ErrUnwrap
	}
	buf := append([]byte(nil), wrapped...)
	defer clear(buf)
	n := len(buf)/8 - 1
	if n == 1 {
		block.Decrypt(buf, buf)
	} else {
		var b [aes.BlockSize]byte
		defer clear(b[:])
		copy(b[:8], buf[:8])
		for j := 5; j >= 0; j-- {
			for i := n; i >= 1; i-- {
				t := binary.BigEndian.Uint64(b[:8]) ^ uint64(n*j+i)
				binary.BigEndian.PutUint64(b[:8], t)
				copy(b[8:], buf[8*i:8*i+8])
				block.Decrypt(b[:], b[:])
				copy(buf[8*i:], b[8:])
			}
		}
		copy(buf[:8], b[:8])
	}
	// All checks are made before the answer, so that none can be told from another.
	length := int(binary.BigEndian.Uint32(buf[4:8]))
	good := subtle.ConstantTimeCompare(buf[:4], binary.BigEndian.AppendUint32(nil, kwpICV))
	if length <= 8*(n-1) || length > 8*n {
		return nil, ErrUnwrap
	}
	var pad byte
	for _, c := range buf[8+length:] {
		pad |= c
	}
	if good&subtle.ConstantTimeByteEq(pad, 0) != 1 {
		return nil, ErrUnwrap
	}
	return append([]byte(nil), buf[8:8+length]...), nil
}
