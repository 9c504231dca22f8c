// Package auditlog is the append-only log of one VCM or of the platform: a
// Merkle tree (RFC 6962 hashing) kept in a bucket of its owner's store, so that
// an entry is durable in the same transaction as what it tells.
//
// Checkpoints are C2SP tlog checkpoints in signed notes (Ed25519). Who keeps
// one can prove any later change of the entries before it; exports carry one,
// so the tenant becomes the witness of its own log. An exported file and the
// proof of one entry are checked offline by Verify and VerifyProof.
//
// Entries are expired only after they were exported. Sequence numbers go on:
// the tree keeps the hashes that stand for the removed entries.
//
// Nothing here runs by itself: Append signs a checkpoint every CheckpointEvery
// entries, and the owner calls Checkpoint after Grown has told it to.
package auditlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// CheckpointEvery is how many entries are appended without a checkpoint at most.
const CheckpointEvery = 256

// Bucket is where a log lives, as its owner's transaction sees it. Get returns
// (nil, nil) when the key is absent. Put keeps neither slice.
type Bucket interface {
	Get(key []byte) ([]byte, error)
	Put(key, value []byte) error
	Delete(key []byte) error
	Range(prefix []byte, fn func(key, value []byte) error) error
}

// Config is what a log needs.
type Config struct {
	Origin      string             // names the log: "tesserae/ESN/UUID"
	Key         ed25519.PrivateKey // signs checkpoints
	Certificate string             // Key certified by the unit: an OpenSSH certificate line; may be empty
}

// Log appends, exports and expires. It is safe for concurrent use as far as its
// transactions are.
type Log struct {
	origin      string
	key         ed25519.PrivateKey
	certificate string
	grown       chan struct{}
	buffers     sync.Pool // of *[]byte, for what is put
}

// New returns the log of cfg. It reads nothing.
func New(cfg Config) (*Log, error) {
	if err := checkOrigin(cfg.Origin); err != nil {
		return nil, err
	}
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errkind.Errorf(errkind.Invalid, "log %s: an Ed25519 key is needed", cfg.Origin)
	}
	cert := strings.TrimSpace(cfg.Certificate)
	if strings.ContainsAny(cert, "\r\n") {
		return nil, errkind.Errorf(errkind.Invalid, "log %s: the key's certificate is more than one line", cfg.Origin)
	}
	return &Log{origin: cfg.Origin, key: cfg.Key, certificate: cert, grown: make(chan struct{}, 1)}, nil
}

// Origin names the log.
func (l *Log) Origin() string { return l.origin }

// PublicKey verifies the log's checkpoints.
func (l *Log) PublicKey() ed25519.PublicKey { return l.key.Public().(ed25519.PublicKey) }

// KeyLine is the log's key for a person to keep: its certificate, or the bare
// key while it has none.
func (l *Log) KeyLine() string {
	if l.certificate != "" {
		return l.certificate
	}
	return bareKeyLine(l.PublicKey())
}

// Grown tells the owner that Checkpoint has something to do. At most one
// notice waits; it may come although the transaction was undone.
func (l *Log) Grown() <-chan struct{} { return l.grown }

// Append adds e in the caller's transaction and returns its sequence number.
func (l *Log) Append(b Bucket, e Entry) (seq uint64, err error) {
	var space [64]hash
	st, err := loadStateIn(b, space[:0])
	if err != nil {
		return 0, err
	}
	seq = st.size
	buf := l.buffer()
	defer l.buffers.Put(buf)
	leaf, err := Record{Seq: seq, Entry: e}.append(append((*buf)[:0], leafPrefix...))
	if err != nil {
		return 0, err
	}
	*buf = leaf
	if err := b.Put(entryKey(seq), leaf[len(leafPrefix):]); err != nil {
		return 0, err
	}
	st.frontier = push(st.frontier, st.size, sha256.Sum256(leaf))
	st.size++
	if st.size-st.checked >= CheckpointEvery {
		if err := l.storeCheckpoint(b, &st); err != nil {
			return 0, err
		}
	}
	if err := st.save(b, buf); err != nil {
		return 0, err
	}
	select {
	case l.grown <- struct{}{}:
	default:
	}
	return seq, nil
}

// Checkpoint signs the log as it stands if it has grown since the last
// checkpoint, and returns the newest one.
func (l *Log) Checkpoint(b Bucket) (text string, err error) {
	st, err := loadState(b)
	if err != nil {
		return "", err
	}
	if st.size > st.checked {
		if err := l.storeCheckpoint(b, &st); err != nil {
			return "", err
		}
		if err := st.save(b, new([]byte)); err != nil {
			return "", err
		}
	}
	p, err := b.Get(checkpointKey)
	return string(p), err
}

// Due reports whether Checkpoint would sign a new one.
func (l *Log) Due(b Bucket) (bool, error) {
	st, err := loadState(b)
	return st.size > st.checked, err
}

func (l *Log) storeCheckpoint(b Bucket, st *state) error {
	st.checked = st.size
	return b.Put(checkpointKey, l.sign(st.size, root(st.frontier)))
}

// Position is where a log stands.
type Position struct {
	First    uint64 // the oldest entry that is still here
	Exported uint64 // entries below it were exported
	Next     uint64 // the next entry's sequence number
}

// Position returns where the log stands.
func (l *Log) Position(b Bucket) (Position, error) {
	st, err := loadState(b)
	return Position{First: st.first, Exported: st.exported, Next: st.size}, err
}

// Entry returns one entry that is still here.
func (l *Log) Entry(b Bucket, seq uint64) (Record, error) {
	line, err := loadLine(b, seq)
	if err != nil {
		return Record{}, err
	}
	return ParseRecord(line)
}

// Keys of the bucket.
var (
	stateKey      = []byte("state")
	checkpointKey = []byte("checkpoint")
)

// EntryPrefix begins the keys of entries, which are written once and read seldom.
const EntryPrefix = "e"

func entryKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, len(EntryPrefix)+8), EntryPrefix...), seq)
}

func loadLine(b Bucket, seq uint64) ([]byte, error) {
	line, err := b.Get(entryKey(seq))
	if err != nil {
		return nil, err
	}
	if line == nil {
		return nil, errkind.Errorf(errkind.NotFound, "log entry %d is not here: it was expired, or there is none", seq)
	}
	return line, nil
}

// state is the log's one record besides its entries.
type state struct {
	size     uint64
	first    uint64 // entries below were expired
	exported uint64 // entries below were exported
	checked  uint64 // size at the newest checkpoint
	frontier []hash // of the first size entries
	expired  []hash // frontier of the first `first` entries
}

const stateVersion = 1

func loadState(b Bucket) (state, error) { return loadStateIn(b, nil) }

// loadStateIn is loadState that puts the hashes behind space if it has room for
// them and one more.
func loadStateIn(b Bucket, space []hash) (st state, err error) {
	p, err := b.Get(stateKey)
	if err != nil || p == nil {
		return state{}, err
	}
	if len(p) < 33 || p[0] != stateVersion {
		return state{}, errkind.Errorf(errkind.Integrity, "the log's state record is malformed")
	}
	for i, v := range []*uint64{&st.size, &st.first, &st.exported, &st.checked} {
		*v = binary.BigEndian.Uint64(p[1+8*i:])
	}
	p = p[33:]
	n, m := frontierLen(st.size), frontierLen(st.first)
	if len(p) != (n+m)*hashSize || st.first > st.size || st.exported > st.size || st.checked > st.size {
		return state{}, errkind.Errorf(errkind.Integrity, "the log's state record is malformed")
	}
	if cap(space)-len(space) < n+m+1 {
		space = make([]hash, 0, n+m+1)
	}
	for i := range m + n { // the frontier last, where it can grow
		from := (n + i) * hashSize
		if i >= m {
			from = (i - m) * hashSize
		}
		space = append(space, hash(p[from:from+hashSize]))
	}
	all := space[len(space)-n-m:]
	st.expired, st.frontier = all[:m:m], all[m:]
	return st, nil
}

func (l *Log) buffer() *[]byte {
	if buf, ok := l.buffers.Get().(*[]byte); ok {
		return buf
	}
	return new([]byte)
}

// save puts the state, by way of buf.
func (st *state) save(b Bucket, buf *[]byte) error {
	p := append(slices.Grow((*buf)[:0], 33+(len(st.frontier)+len(st.expired))*hashSize), stateVersion)
	for _, v := range []uint64{st.size, st.first, st.exported, st.checked} {
		p = binary.BigEndian.AppendUint64(p, v)
	}
	for _, h := range st.frontier {
		p = append(p, h[:]...)
	}
	for _, h := range st.expired {
		p = append(p, h[:]...)
	}
	*buf = p
	return b.Put(stateKey, p)
}
