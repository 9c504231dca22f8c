package keyload

import (
	"crypto/aes"
	"crypto/subtle"
)

// CMAC returns the AES-CMAC (SP 800-38B) of message under a 16, 24 or 32 octet key.
func CMAC(key, message []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	var k1, k2 [aes.BlockSize]byte
	block.Encrypt(k1[:], k1[:])
	double(&k1, &k1)
	double(&k2, &k1)

	var x [aes.BlockSize]byte
	for len(message) > aes.BlockSize {
		subtle.XORBytes(x[:], x[:], message[:aes.BlockSize])
		block.Encrypt(x[:], x[:])
		message = message[aes.BlockSize:]
	}
	var last [aes.BlockSize]byte
	n := copy(last[:], message)
	subkey := &k1
	if n < aes.BlockSize {
		last[n] = 0x80
		subkey = &k2
	}
	subtle.XORBytes(last[:], last[:], subkey[:])
	subtle.XORBytes(x[:], x[:], last[:])
	block.Encrypt(x[:], x[:])
	return x[:], nil
}

// double multiplies by x in GF(2^128), without a branch on secret bits.
func double(dst, src *[aes.BlockSize]byte) {
	carry := byte(0)
	for i := aes.BlockSize - 1; i >= 0; i-- {
		b := src[i]
		dst[i] = b<<1 | carry
		carry = b >> 7
	}
	dst[aes.BlockSize-1] ^= 0x87 & -carry
}
