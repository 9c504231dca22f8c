// Package auditlog is the append-only log of one VCM or of the platform: a
// Merkle tree (RFC 6962 hashing) kept in a bucket of its owner's store, with
// checkpoints signed in the C2SP form.
package auditlog

import (
	"crypto/ed25519"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Bucket is where a log lives, as its owner's transaction sees it. Get returns
// (nil, nil) when the key is absent.
type Bucket interface {
	Get(key []byte) ([]byte, error)
	Put(key, value []byte) error
	Delete(key []byte) error
	Range(prefix []byte, fn func(key, value []byte) error) error
}

// Entry is one event.
type Entry struct {
	Time    time.Time
	Kind    string            // what happened, dotted: "vend.credit"
	Actor   string            // who did it
	Subject string            // to what
	Detail  map[string]string // the rest; never a secret
}

// Record is an entry with its place in the log.
type Record struct {
	Seq uint64
	Entry
}

// Config is what a log needs.
type Config struct {
	Origin      string             // names the log: "tesserae/ESN/UUID"
	Key         ed25519.PrivateKey // signs checkpoints
	Certificate string             // Key certified by the unit: an OpenSSH certificate line; may be empty
}

// Log appends, exports and expires. It is safe for concurrent use as far as its
// transactions are.
type Log struct{}

// Export is one exported, signed stretch of the log.
type Export struct {
	First, Last uint64 // inclusive; Last < First if there is nothing to export
	Text        []byte // see Verify
	More        bool   // there are further entries to export
}

var errSoon = errkind.Errorf(errkind.Unavailable, "log is not open")

// New returns the log of cfg. It reads nothing.
func New(cfg Config) (*Log, error) { return nil, errSoon }

// Append adds e in the caller's transaction and returns its sequence number.
func (l *Log) Append(b Bucket, e Entry) (seq uint64, err error) { return 0, errSoon }

// Checkpoint signs the log as it stands if it has grown since the last
// checkpoint, and stores and returns the newest checkpoint.
func (l *Log) Checkpoint(b Bucket) (text string, err error) { return "", errSoon }

// Grown tells the owner that Checkpoint has something to do.
func (l *Log) Grown() <-chan struct{} { return nil }

// Export returns entries from seq on and notes that they were exported. With
// saved, entries that were exported before are exported again.
func (l *Log) Export(b Bucket, from uint64, saved bool, maxBytes int) (Export, error) {
	return Export{}, errSoon
}

// Expire removes the entries up to and including seq, which must have been exported.
func (l *Log) Expire(b Bucket, seq uint64) (removed int, err error) { return 0, errSoon }

// Prove returns a proof, as text, that the entry seq is in the log.
func (l *Log) Prove(b Bucket, seq uint64) ([]byte, error) { return nil, errSoon }

// Verified is what an export proves.
type Verified struct {
	Origin      string
	First, Last uint64
	Root        [32]byte // of the log up to Last
	Prefix      [32]byte // of the log before First: the Root of the preceding export
	Records     []Record
	Certificate string
}

// Verify checks an export against the log's key.
func Verify(text []byte, key ed25519.PublicKey) (Verified, error) { return Verified{}, errSoon }

// VerifyProof checks the proof of one entry against the log's key.
func VerifyProof(text []byte, key ed25519.PublicKey) (Record, error) { return Record{}, errSoon }

// CertifiedKey returns the log key in a certificate line as Monitor.logKey
// gives it, if unit signed it for principal.
func CertifiedKey(line string, unit ssh.PublicKey, principal string) (ed25519.PublicKey, error) {
	return nil, errSoon
}
