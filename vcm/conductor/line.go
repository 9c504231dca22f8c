package conductor

import (
	"bytes"
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
	got, err := hex.DecodeString(string(tail)) // either case
	if err != nil || uint16(got[0])<<8|uint16(got[1]) != want {
		return request{}, tsm.CodeChecksum
	}
	if body[2] != '?' || !upper(body[0]) || !upper(body[1]) || !upper(body[3]) || !upper(body[4]) {
		return request{}, tsm.CodeInvalidHeader
	}
	return request{group: string(body[:2]), command: string(body[3:5]), params: string(body[headerSize:])}, tsm.CodeOK
}

func upper(c byte) bool { return c >= 'A' && c <= 'Z' }

// respond makes a response's line: header, status, payload, CRC.
func respond(group, command string, status tsm.Code, payload string) []byte {
	line := make([]byte, 0, headerSize+2+len(payload)+crcSize)
	line = append(append(append(line, group...), '!'), command...)
	line = append(append(line, status...), payload...)
	return appendHex16(line, keyload.CRC16(line))
}

// appendHex16 appends four upper-case hex digits.
func appendHex16(dst []byte, v uint16) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, digits[v>>12], digits[v>>8&15], digits[v>>4&15], digits[v&15])
}

// unattributed answers a request that belongs to no command.
func unattributed(code tsm.Code) []byte { return respond("GL", "ER", code, "") }

func isUnattributed(line []byte) bool { return bytes.HasPrefix(line, []byte("GL!ER")) }
