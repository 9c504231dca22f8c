package store

import (
	"encoding/binary"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// The log's file begins with a head:
//
//	"tesserae log v1\n" || commitment of the key (32) || random id of the file (16)
//
// Records follow without gaps. A commit is one or more records:
//
//	magic (4) || length of the box (4) || number of the commit (8) ||
//	index of the record in its commit, top bit set on the last (4) ||
//	tag of the record before, in the first one the file's id (16) || box
//
// The box seals a list of operations. Its associated data are the file's id, the
// record's offset and the 36 bytes before the box, so that a record opens only
// in its place after its predecessor. Bytes after the last commit are zeros, or
// what is left of a write that was never acknowledged.
const (
	fileMagic   = "tesserae log v1\n"
	idSize      = 16
	commitSize  = 32
	headSize    = len(fileMagic) + commitSize + idSize
	recordMagic = "\x93rec"
	recordHead  = 36
	lastRecord  = 1 << 31
	tagSize     = 16

	// chunk is how much plaintext shares a record, unless one value has more:
	// little enough that reading one value back costs little.
	chunk = 16 << 10
	// innerBits is what of an item's place is the offset inside the record.
	innerBits = 21
)

// Operations.
const (
	opBucket = 1 // name: what follows is of this bucket
	opPut    = 2 // key, value
	opDelete = 3 // key
)

// opCost is what an operation takes besides key and value, and its part of what
// the record takes besides its operations.
const opCost = 8

// tag identifies a record for the next one.
type tag [tagSize]byte

type recordHeader struct {
	length uint32
	seq    uint64
	index  uint32
	last   bool
	prev   tag
}

func (h recordHeader) append(p []byte) []byte {
	p = append(p, recordMagic...)
	p = binary.BigEndian.AppendUint32(p, h.length)
	p = binary.BigEndian.AppendUint64(p, h.seq)
	i := h.index
	if h.last {
		i |= lastRecord
	}
	p = binary.BigEndian.AppendUint32(p, i)
	return append(p, h.prev[:]...)
}

// parseRecordHeader reports false for what is not a header.
func parseRecordHeader(p []byte) (h recordHeader, ok bool) {
	if len(p) < recordHead || string(p[:len(recordMagic)]) != recordMagic {
		return recordHeader{}, false
	}
	h = recordHeader{length: binary.BigEndian.Uint32(p[4:]), seq: binary.BigEndian.Uint64(p[8:]), index: binary.BigEndian.Uint32(p[16:])}
	h.last = h.index&lastRecord != 0
	h.index &^= lastRecord
	copy(h.prev[:], p[20:])
	return h, h.length >= sealed.Overhead && h.length < 1<<innerBits
}

// writer makes the records of one commit.
type writer struct {
	key  *sealed.Key
	id   [idSize]byte
	off  int64 // of the next record
	seq  uint64
	prev tag
	n    uint32 // records so far

	bucket *bucket // the one selected in body
	body   []byte
	out    []byte
	data   []byte // associated data
}

func (w *writer) begin(l *logFile, seq uint64) {
	w.id, w.off, w.prev = l.id, l.end, l.prev
	w.seq, w.n, w.bucket = seq, 0, nil
	w.body, w.out = w.body[:0], w.out[:0]
}

// operation begins an operation that needs size bytes besides its framing.
func (w *writer) operation(b *bucket, op byte, size int) {
	if len(w.body) > 0 && len(w.body)+size > chunk {
		w.seal(false)
	}
	if w.bucket != b {
		w.body = append(w.body, opBucket)
		w.body = appendText(w.body, []byte(b.name))
		w.bucket = b
	}
	w.body = append(w.body, op)
}

// put writes an item with its value and returns the value's place.
func (w *writer) put(b *bucket, key, value []byte) (at uint64) {
	w.operation(b, opPut, len(key)+len(value))
	w.body = appendText(w.body, key)
	w.body = appendText(w.body, value)
	return uint64(w.off)<<innerBits | uint64(len(w.body)-len(value))
}

func (w *writer) delete(b *bucket, key []byte) {
	w.operation(b, opDelete, len(key))
	w.body = appendText(w.body, key)
}

// seal ends a record.
func (w *writer) seal(last bool) {
	h := recordHeader{length: uint32(len(w.body) + sealed.Overhead), seq: w.seq, index: w.n, last: last, prev: w.prev}
	start := len(w.out)
	w.out = h.append(w.out)
	w.data = associated(w.data[:0], w.id, w.off, w.out[start:])
	w.out = w.key.Seal(w.out, w.body, w.data)
	copy(w.prev[:], w.out[len(w.out)-tagSize:])
	w.off += int64(len(w.out) - start)
	w.n++
	w.body, w.bucket = w.body[:0], nil
}

// trim gives back what an unusually large commit needed.
func (w *writer) trim() {
	const most = 256 << 10
	if cap(w.out) > most {
		w.out = nil
	}
	if cap(w.body) > most {
		w.body = nil
	}
}

func associated(dst []byte, id [idSize]byte, off int64, header []byte) []byte {
	dst = append(dst, id[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(off))
	return append(dst, header...)
}

func appendText(p, text []byte) []byte {
	return append(binary.AppendUvarint(p, uint64(len(text))), text...)
}

// operation is one that was read.
type operation struct {
	put    bool
	bucket string
	key    []byte
	value  []byte
	inner  int // offset of value in the record
}

// operations calls fn for each operation of a record. What it reads was sealed
// by this package, so that a mistake in it is not the disk's.
func operations(body []byte, fn func(operation) error) error {
	whole := len(body)
	failed := false
	text := func() []byte {
		n, used := binary.Uvarint(body)
		if used <= 0 || n > uint64(len(body)-used) {
			failed = true
			return nil
		}
		out := body[used : used+int(n) : used+int(n)]
		body = body[used+int(n):]
		return out
	}
	var o operation
	for len(body) > 0 {
		op := body[0]
		body = body[1:]
		switch op {
		case opBucket:
			o.bucket = string(text())
		case opPut, opDelete:
			o.put, o.key, o.value = op == opPut, text(), nil
			if o.put {
				o.value = text()
				o.inner = whole - len(body) - len(o.value)
			}
			failed = failed || len(o.key) == 0 || len(o.key) > MaxKey || o.bucket == ""
		default:
			failed = true
		}
		if failed {
			return errkind.Errorf(errkind.Integrity, "the store holds a record of an unknown form")
		}
		if op == opBucket {
			continue
		}
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}
