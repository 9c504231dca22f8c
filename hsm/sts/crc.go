package sts

// crcTable holds the CRC of every byte for polynomial x^16+x^15+x^2+1,
// processed least significant bit first (A001 hex).
var crcTable = makeCRCTable()

func makeCRCTable() (t [256]uint16) {
	for i := range t {
		c := uint16(i)
		for range 8 {
			if c&1 != 0 {
				c = c>>1 ^ 0xA001
			} else {
				c >>= 1
			}
		}
		t[i] = c
	}
	return t
}

// crc returns the 16-bit check field over Class (2 bits) and the upper 48 bits
// of the data block: 50 bits, padded on the left to 7 bytes, most significant
// byte first, initial value FFFF, result with its low byte first. For currency
// credit (CRC_C) a byte 01 follows.
func crc(class Class, block uint64, currency bool) uint16 {
	c := uint16(0xFFFF)
	c = c>>8 ^ crcTable[byte(c)^byte(class)]
	for shift := 56; shift >= 16; shift -= 8 {
		c = c>>8 ^ crcTable[byte(c)^byte(block>>shift)]
	}
	if currency {
		c = c>>8 ^ crcTable[byte(c)^0x01]
	}
	return c<<8 | c>>8
}
