package sts

import "math/bits"

// Token is what the carrier transports (the TCDU of IEC 62055-41 6.4): 66 bits,
// the 64-bit data block with the two class bits inserted. Bits 28 and 27 hold
// the class (its most significant bit in 28), the block's own bits 28 and 27
// stand in bits 65 and 64. The zero value is a number like any other.
type Token struct {
	top   uint8 // bits 65..64
	block uint64
}

// ParseToken reads a token of exactly 20 decimal digits. A number of 2^66 or
// more is ErrRange.
func ParseToken(s string) (Token, error) {
	if len(s) != 20 {
		return Token{}, fail(ErrFormat, "token", "expected 20 decimal digits")
	}
	high, ok1 := digits(s[:10], 10)
	low, ok2 := digits(s[10:], 10)
	if !ok1 || !ok2 {
		return Token{}, fail(ErrFormat, "token", "expected 20 decimal digits")
	}
	top, block := bits.Mul64(high, 1e10)
	block, carry := bits.Add64(block, low, 0)
	top += carry
	if top > 3 {
		return Token{}, fail(ErrRange, "token", "the digits do not fit 66 bits")
	}
	return Token{uint8(top), block}, nil
}

// ParseTokenHex reads a token of exactly 17 hexadecimal digits of either case.
// The first digit is 0..3; above it is ErrRange.
func ParseTokenHex(s string) (Token, error) {
	if len(s) != 17 {
		return Token{}, fail(ErrFormat, "token", "expected 17 hexadecimal digits")
	}
	var t Token
	for i := range 17 {
		d, ok := hexValue(s[i])
		if !ok {
			return Token{}, fail(ErrFormat, "token", "expected 17 hexadecimal digits")
		}
		if i == 0 {
			t.top = d
		} else {
			t.block = t.block<<4 | uint64(d)
		}
	}
	if t.top > 3 {
		return Token{}, fail(ErrRange, "token", "the digits do not fit 66 bits")
	}
	return t, nil
}

// Class returns the token class, which is never encrypted.
func (t Token) Class() Class { return Class(t.block >> 27 & 3) }

// String returns the 20 decimal digits, zero-padded: what a customer types.
func (t Token) String() string {
	var b [20]byte
	t.decimal(&b)
	return string(b[:])
}

// AppendDecimal appends the 20 decimal digits to dst.
func (t Token) AppendDecimal(dst []byte) []byte {
	var b [20]byte
	t.decimal(&b)
	return append(dst, b[:]...)
}

// Hex returns the 17 hexadecimal digits, upper case, zero-padded.
func (t Token) Hex() string {
	var b [17]byte
	return string(t.AppendHex(b[:0]))
}

// AppendHex appends the 17 hexadecimal digits, upper case, to dst.
func (t Token) AppendHex(dst []byte) []byte {
	const digits = "0123456789ABCDEF"
	dst = append(dst, digits[t.top&3])
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[t.block>>shift&15])
	}
	return dst
}

func (t Token) decimal(b *[20]byte) {
	high, low := bits.Div64(uint64(t.top), t.block, 1e10)
	putDigits(b[:10], high)
	putDigits(b[10:], low)
}

const classMask = 3 << 27

// insertClass makes a token of an (encrypted) data block.
func insertClass(class Class, block uint64) Token {
	return Token{
		top:   uint8(block >> 27 & 3),
		block: block&^classMask | uint64(class)<<27,
	}
}

// extractClass undoes insertClass.
func (t Token) extractClass() (Class, uint64) {
	return Class(t.block >> 27 & 3), t.block&^classMask | uint64(t.top)<<27
}

func hexValue(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
