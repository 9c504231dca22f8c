package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// logFile is one file of records. Its last user gives it away.
type logFile struct {
	f    *os.File
	id   [idSize]byte
	end  int64 // of the last commit
	size int64 // space that is allocated already
	prev tag   // of the last record
	torn bool  // there is an unfinished commit after the last one
	refs atomic.Int32
	// after is what the last user does with the file.
	after func(*os.File) error
}

func (l *logFile) release() error {
	if l.refs.Add(-1) > 0 {
		return nil
	}
	return l.after(l.f)
}

func closeFile(f *os.File) error { return f.Close() }

// newFile makes f a log without commits.
func newFile(f *os.File, key *sealed.Key) (*logFile, error) {
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	l := &logFile{f: f, after: closeFile}
	l.refs.Store(1)
	_, _ = rand.Read(l.id[:])
	l.prev = tag(l.id)
	head := append(append([]byte(fileMagic), key.Commitment()...), l.id[:]...)
	if _, err := f.WriteAt(head, 0); err != nil {
		return nil, err
	}
	l.end, l.size = int64(len(head)), int64(len(head))
	return l, nil
}

// readHead reads the file's head and checks the key.
func readHead(f *os.File, key *sealed.Key) (*logFile, error) {
	var head [headSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, errkind.Errorf(errkind.Internal, "read the store: %w", err)
	}
	if string(head[:len(fileMagic)]) != fileMagic {
		return nil, errkind.Errorf(errkind.Integrity, "the store has no header: the file was replaced")
	}
	if err := key.CheckCommitment(head[len(fileMagic) : len(fileMagic)+commitSize]); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "store: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "look at the store: %w", err)
	}
	l := &logFile{f: f, id: [idSize]byte(head[headSize-idSize:]), end: int64(headSize), size: st.Size(), after: closeFile}
	l.prev = tag(l.id)
	l.refs.Store(1)
	return l, nil
}

// grow writes zeros ahead for more bytes, so that most commits change nothing of
// the file but its content: then a sync need not write the file system's journal.
func (l *logFile) grow(more int64, step int64) error {
	need := l.end + more
	if need <= l.size {
		return nil
	}
	size := need + min(max(l.end/2, step/8), step)
	if err := l.fill(size); err != nil {
		if size = need; l.fill(size) != nil { // perhaps there is just enough room
			return err
		}
	}
	l.size = size
	return nil
}

// fill writes zeros from the end of what was filled to size.
func (l *logFile) fill(size int64) error {
	for from := l.size; from < size; {
		n := min(size-from, int64(len(zeros)))
		if _, err := l.f.WriteAt(zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// zeros is never written to.
var zeros [64 << 10]byte

// errUncertain wraps the failure of a write whose outcome is not known.
type errUncertain struct{ error }

// append writes the records of one commit and makes them durable.
func (l *logFile) append(w *writer, step int64) error {
	if err := l.grow(int64(len(w.out)), step); err != nil {
		return err
	}
	if _, err := l.f.WriteAt(w.out, l.end); err != nil {
		// Not whole, so not a commit; nothing of it is to remain.
		if cut := l.f.Truncate(l.end); cut != nil {
			return errUncertain{errors.Join(err, cut)}
		}
		l.size = l.end
		return err
	}
	if err := unix.Fdatasync(int(l.f.Fd())); err != nil {
		return errUncertain{err}
	}
	l.end, l.prev = w.off, w.prev
	return nil
}

// record reads the record at off; ok is false if there is none that opens.
// The body is in space if that is large enough.
func (l *logFile) record(key *sealed.Key, off int64, space []byte) (h recordHeader, t tag, body []byte, ok bool, err error) {
	var head [recordHead]byte
	n, err := l.f.ReadAt(head[:], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, t, nil, false, errkind.Errorf(errkind.Internal, "read the store: %w", err)
	}
	if h, ok = parseRecordHeader(head[:n]); !ok {
		return h, t, nil, false, nil
	}
	box := slices.Grow(space[:0], int(h.length))[:h.length]
	if n, err := l.f.ReadAt(box, off+recordHead); n < len(box) {
		if errors.Is(err, io.EOF) {
			return h, t, nil, false, nil
		}
		return h, t, nil, false, errkind.Errorf(errkind.Internal, "read the store: %w", err)
	}
	t, body, ok = l.open(key, off, head[:], box)
	return h, t, body, ok, nil
}

// open opens the box of the record at off, in its place.
func (l *logFile) open(key *sealed.Key, off int64, head, box []byte) (t tag, body []byte, ok bool) {
	copy(t[:], box[len(box)-tagSize:])
	body, err := key.OpenInPlace(box, associated(nil, l.id, off, head))
	return t, body, err == nil
}

// next is record for who reads all of them in order. The body is gone with what
// is read next.
func (l *logFile) next(key *sealed.Key, off int64, from *ahead) (h recordHeader, t tag, body []byte, ok bool, err error) {
	p, err := from.at(off, recordHead)
	if err != nil {
		return h, t, nil, false, err
	}
	if h, ok = parseRecordHeader(p); !ok {
		return h, t, nil, false, nil
	}
	whole := recordHead + int(h.length)
	if p, err = from.at(off, whole); err != nil || len(p) < whole {
		return h, t, nil, false, err
	}
	t, body, ok = l.open(key, off, p[:recordHead], p[recordHead:])
	return h, t, body, ok, nil
}

// ahead reads a file forwards, many records at a time.
type ahead struct {
	f   *os.File
	off int64  // of p in the file
	p   []byte // what was read; whoever takes it may write to it
}

// aheadSize is how much is read at once, if no record needs more.
const aheadSize = 32 << 10

// at returns n bytes at off, fewer where the file ends. They are there until the
// next call.
func (a *ahead) at(off int64, n int) ([]byte, error) {
	if off < a.off || off+int64(n) > a.off+int64(len(a.p)) {
		p := slices.Grow(a.p[:0], max(n, aheadSize))[:max(n, aheadSize)]
		m, err := a.f.ReadAt(p, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, errkind.Errorf(errkind.Internal, "read the store: %w", err)
		}
		a.off, a.p = off, p[:m]
	}
	p := a.p[off-a.off:]
	return p[:min(n, len(p))], nil
}

// replay reads the commits in order. base is the first one, which was whole
// before the file was the store's; only what comes after may be unfinished. The
// base was copied while there were commits: its number is that of its last
// record.
func (l *logFile) replay(key *sealed.Key, apply func(off int64, body []byte) error) (seq uint64, err error) {
	type staged struct {
		off  int64
		body []byte
	}
	var waiting []staged // records of a commit whose last one was not read yet
	off, base, index := l.end, true, uint32(0)
	prev := l.prev
	from := &ahead{f: l.f}
	for {
		h, t, body, ok, err := l.next(key, off, from)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		if h.prev != prev || h.index != index || !base && h.seq != seq+1 || base && h.seq < seq {
			return 0, errkind.Errorf(errkind.Integrity, "the store was changed: record at %d does not follow the one before", off)
		}
		here := off
		off, prev, index = off+recordHead+int64(h.length), t, index+1
		switch {
		case base:
			seq = h.seq
			if err := apply(here, body); err != nil {
				return 0, err
			}
		case h.last && len(waiting) == 0:
			waiting = append(waiting, staged{here, body})
		default:
			waiting = append(waiting, staged{here, slices.Clone(body)})
		}
		if !h.last {
			continue
		}
		for _, s := range waiting {
			if err := apply(s.off, s.body); err != nil {
				return 0, err
			}
		}
		clear(waiting)
		seq, base, index, waiting = h.seq, false, 0, waiting[:0]
		l.end, l.prev = off, prev
	}
	if base {
		return 0, errkind.Errorf(errkind.Integrity, "the store is damaged: its first commit does not open")
	}
	return seq, l.checkTail(key, seq+1, from)
}

// checkTail looks for an unfinished commit after the last one. Commits are
// written one after the other, so that a whole record of a later one means that
// this one was finished, and has been damaged since.
func (l *logFile) checkTail(key *sealed.Key, unfinished uint64, from *ahead) error {
	var err error
	if l.torn, err = l.written(from); err != nil || !l.torn {
		return err
	}
	rest, err := io.ReadAll(io.NewSectionReader(l.f, l.end, max(0, l.size-l.end)))
	if err != nil {
		return errkind.Errorf(errkind.Internal, "read the store: %w", err)
	}
	for i := 0; ; i++ {
		next := bytes.Index(rest[i:], []byte(recordMagic))
		if next < 0 {
			break
		}
		i += next
		h, _, _, ok, err := l.record(key, l.end+int64(i), nil)
		if err != nil {
			return err
		}
		if ok && h.seq > unfinished {
			return errkind.Errorf(errkind.Integrity, "the store is damaged: commit %d does not open, commit %d does", unfinished, h.seq)
		}
	}
	return nil
}

// written reports whether there is anything but zeros after the last commit.
func (l *logFile) written(from *ahead) (bool, error) {
	from.p = from.p[:0] // a box that did not open is not what it was
	for off := l.end; off < l.size; {
		p, err := from.at(off, aheadSize)
		if err != nil || len(p) == 0 {
			return false, err
		}
		// All bytes are like the first one if each is like the next.
		if p[0] != 0 || !bytes.Equal(p[1:], p[:len(p)-1]) {
			return true, nil
		}
		off += int64(len(p))
	}
	return false, nil
}

// cutTail removes an unfinished commit.
func (l *logFile) cutTail() error {
	if !l.torn {
		return nil
	}
	if err := errors.Join(l.f.Truncate(l.end), l.f.Sync()); err != nil {
		return errkind.Errorf(errkind.Internal, "remove an unfinished commit: %w", err)
	}
	l.size, l.torn = l.end, false
	return nil
}
