package sshrpc

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// readFrame reads one message: four bytes of length, then that many. started is
// called when the first byte has arrived. io.EOF means there was none.
func readFrame(r io.Reader, limit int, started func()) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return nil, io.EOF
	}
	started()
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "half a frame: the length is cut off")
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || uint64(size) > uint64(limit) {
		return nil, errkind.Errorf(errkind.Limit, "a frame of %d bytes; 1 to %d are allowed", size, limit)
	}
	// The buffer grows with what arrives, not with what was announced.
	var b bytes.Buffer
	if n, err := io.CopyN(&b, r, int64(size)); err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "half a frame: %d of %d bytes", n, size)
	}
	return b.Bytes(), nil
}

// writeFrame writes one message with a single Write.
func writeFrame(w io.Writer, message []byte) error {
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(message)), uint32(len(message)))
	_, err := w.Write(append(frame, message...))
	return err
}
