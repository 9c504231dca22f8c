package conductor

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	prefixSize = 6
	// maxFrame bounds a frame: the longest P field and the fields around it.
	maxFrame = 3 * 8192
)

var errFrame = errors.New("this is not a Conductor frame")

// frame is a line with the six bytes that its response repeats.
type frame struct {
	prefix [prefixSize]byte
	line   []byte // without CR; nil if the frame did not end with one
}

// readFrame reads what follows the first byte of a frame. The line is in buf, or
// in a larger buffer that it becomes.
func readFrame(first byte, r *bufio.Reader, buf *[]byte) (frame, error) {
	second, err := r.ReadByte()
	if err != nil {
		return frame{}, unexpected(err)
	}
	n := int(binary.BigEndian.Uint16([]byte{first, second}))
	if n <= prefixSize || n > maxFrame {
		return frame{}, fmt.Errorf("%w: length %d", errFrame, n)
	}
	*buf = slices.Grow((*buf)[:0], n)
	body := (*buf)[:n]
	if _, err := io.ReadFull(r, body); err != nil {
		return frame{}, unexpected(err)
	}
	f := frame{}
	copy(f.prefix[:], body)
	if line := body[prefixSize:]; line[len(line)-1] == '\r' {
		f.line = line[:len(line)-1]
	}
	return f, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendFrame frames a response's line. Errors that could not be attributed to
// a command go bare where raw is set.
func appendFrame(dst []byte, prefix [prefixSize]byte, line []byte, raw bool) []byte {
	if raw && isUnattributed(line) {
		return append(append(dst, line...), '\r')
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(prefixSize+len(line)+1))
	dst = append(dst, prefix[:]...)
	return append(append(dst, line...), '\r')
}
