package device

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// The journal is journalHead and then batches. A batch is
//
//	count (4) || count x (id (4) || value (8)) || MAC (16)
//
// in big-endian order. The MAC covers the batch's number in the file too, so
// that batches cannot be left out or reordered. Only the last batch may be torn,
// because each one is on the disk before the next is written.
const (
	journalHead  = "tesserae counters 1\n"
	recordSize   = 12
	macSize      = 16
	maxRecords   = 1 << 16
	maxBatchSize = 4 + maxRecords*recordSize + macSize
	maxJournal   = compactAt + 2*maxBatchSize
)

func encodeBatch(mac []byte, seq uint64, values map[uint32]uint64) []byte {
	p := make([]byte, 0, 4+len(values)*recordSize+macSize)
	p = binary.BigEndian.AppendUint32(p, uint32(len(values)))
	for _, id := range slices.Sorted(maps.Keys(values)) {
		p = binary.BigEndian.AppendUint32(p, id)
		p = binary.BigEndian.AppendUint64(p, values[id])
	}
	return append(p, batchMAC(mac, seq, p)...)
}

func batchMAC(mac []byte, seq uint64, p []byte) []byte {
	h := hmac.New(sha256.New, mac)
	h.Write(binary.BigEndian.AppendUint64(nil, seq))
	h.Write(p)
	return h.Sum(nil)[:macSize]
}

func readJournal(path string, mac []byte) (map[uint32]uint64, error) {
	p, err := atomicfile.Read(path, maxJournal)
	if errors.Is(err, os.ErrNotExist) {
		return map[uint32]uint64{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("counters: %w", err)
	}
	values, err := parseJournal(p, mac)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "%s: %w", path, err)
	}
	return values, nil
}

func parseJournal(p, mac []byte) (map[uint32]uint64, error) {
	rest, ok := cutHead(p)
	if !ok {
		return nil, errors.New("no journal of counters")
	}
	values := map[uint32]uint64{}
	for seq := uint64(0); len(rest) > 0; seq++ {
		n, ok := readBatch(rest, mac, seq, values)
		if !ok {
			// The first batch was written by an atomic replacement, and one that
			// others follow was complete: neither can be torn.
			if seq == 0 || len(rest) > maxBatchSize || followed(rest, mac, seq+1) {
				return nil, fmt.Errorf("batch %d was damaged after it was written", seq)
			}
			return values, nil
		}
		rest = rest[n:]
	}
	return values, nil
}

// followed reports whether a batch of number seq begins anywhere in p.
func followed(p, mac []byte, seq uint64) bool {
	for i := 1; i < len(p); i++ {
		if _, ok := readBatch(p[i:], mac, seq, map[uint32]uint64{}); ok {
			return true
		}
	}
	return false
}

func cutHead(p []byte) ([]byte, bool) {
	if len(p) < len(journalHead) || string(p[:len(journalHead)]) != journalHead {
		return nil, false
	}
	return p[len(journalHead):], true
}

// readBatch applies the first batch of p to values and returns its length, if it
// verifies.
func readBatch(p, mac []byte, seq uint64, values map[uint32]uint64) (int, bool) {
	if len(p) < 4 {
		return 0, false
	}
	count := binary.BigEndian.Uint32(p)
	if count > maxRecords {
		return 0, false
	}
	body := 4 + int(count)*recordSize
	if len(p) < body+macSize {
		return 0, false
	}
	if !hmac.Equal(p[body:body+macSize], batchMAC(mac, seq, p[:body])) {
		return 0, false
	}
	for r := p[4:body]; len(r) > 0; r = r[recordSize:] {
		id := binary.BigEndian.Uint32(r)
		values[id] = max(values[id], binary.BigEndian.Uint64(r[4:]))
	}
	return body + macSize, true
}
