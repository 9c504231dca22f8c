package conductor

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

const (
	headerSize = 5
	crcSize    = 4
)

// request is a line whose CRC is right.
type request struct {
	group, command string // such as SM and VC
	params         string
}

// parseLine reads a request. The code is CodeOK, CodeChecksum or
// CodeInvalidHeader.
func parseLine(line []byte) (request, tsm.Code) {
	if len(line) < headerSize+crcSize {
		return request{}, tsm.CodeChecksum
	}
	body, tail := line[:len(line)-crcSize], line[len(line)-crcSize:]
	want := keyload.CRC16(body)
	var got [crcSize / 2]byte
	if _, err := hex.Decode(got[:], tail); err != nil || binary.BigEndian.Uint16(got[:]) != want { // either case
		return request{}, tsm.CodeChecksum
	}
	if body[2] != '?' || !upper(body[0]) || !upper(body[1]) || !upper(body[3]) || !upper(body[4]) {
		return request{}, tsm.CodeInvalidHeader
	}
	text := string(body)
	return request{group: text[:2], command: text[3:5], params: text[headerSize:]}, tsm.CodeOK
}

func upper(c byte) bool { return c >= 'A' && c <= 'Z' }

// appendResponse appends a response's line: header, status, payload, CRC.
func appendResponse(dst []byte, group, command string, status tsm.Code, payload []byte) []byte {
	at := len(dst)
	dst = append(append(append(dst, group...), '!'), command...)
	dst = append(append(dst, status...), payload...)
	return appendHex16(dst, keyload.CRC16(dst[at:]))
}

// appendHex16 appends four upper-case hex digits.
func appendHex16(dst []byte, v uint16) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, digits[v>>12], digits[v>>8&15], digits[v>>4&15], digits[v&15])
}

func isUnattributed(line []byte) bool { return bytes.HasPrefix(line, []byte("GL!ER")) }
