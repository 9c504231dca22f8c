package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Verified is what an export proves.
type Verified struct {
	Origin      string
	First, Last uint64
	Root        [32]byte // of the log up to Last
	Previous    [32]byte // of the log before First: the Root of the preceding export
	Records     []Record
	Certificate string // as it stands in the file; see CertifiedKey
}

// Follows reports whether v goes on where prev ends, without a gap and in the
// same log.
func (v Verified) Follows(prev Verified) error {
	switch {
	case v.Origin != prev.Origin:
		return errkind.Errorf(errkind.Integrity, "exports of different logs: %s and %s", prev.Origin, v.Origin)
	case v.First != prev.Last+1:
		return errkind.Errorf(errkind.Integrity, "exports do not join: one ends with entry %d, the next begins with %d", prev.Last, v.First)
	case v.Previous != prev.Root:
		return errkind.Errorf(errkind.Integrity, "the log was changed: its entries up to %d are not those exported before", prev.Last)
	}
	return nil
}

// Certificate returns the certificate line of an export or a proof, "" if it
// has none. What it says is worth nothing before CertifiedKey has checked it.
func Certificate(text []byte) (string, error) {
	for line := range strings.SplitSeq(string(text), "\n") {
		if line == "" {
			break
		}
		if c, ok := strings.CutPrefix(line, "Certificate: "); ok {
			if c == none {
				return "", nil
			}
			return c, nil
		}
	}
	return "", errkind.Errorf(errkind.Invalid, "this is neither a log export nor a log proof")
}

// Verify checks an export, as Log.Export describes it, against the log's key.
func Verify(text []byte, key ed25519.PublicKey) (Verified, error) {
	e, err := verify(text, key)
	return e.Verified, err
}

// Extract takes the proof of one entry, as Log.Prove makes it, out of a verified
// export: it needs no access to the log and shows nothing of the other entries.
func Extract(text []byte, key ed25519.PublicKey, seq uint64) ([]byte, error) {
	e, err := verify(text, key)
	if err != nil {
		return nil, err
	}
	if seq < e.First || seq > e.Last {
		return nil, errkind.Errorf(errkind.NotFound, "log entry %d is not in this export of entries %d to %d", seq, e.First, e.Last)
	}
	line := func(seq uint64) ([]byte, error) { return e.lines[seq-e.First], nil }
	path, err := newLeaves(e.First, e.before, line).path(seq, e.Last+1)
	if err != nil {
		return nil, err
	}
	return proof(e.lines[seq-e.First], path, e.Certificate, e.checkpoint), nil
}

// verified is an export with what it is made of.
type verified struct {
	Verified
	before     []hash // frontier of the entries before First
	lines      [][]byte
	checkpoint []byte
}

func verify(text []byte, key ed25519.PublicKey) (verified, error) {
	v, err := parseExport(text)
	if err != nil {
		return verified{}, err
	}
	frontier := append([]hash(nil), v.before...)
	next := v.First
	for _, line := range v.lines {
		r, err := ParseRecord(line)
		if err != nil {
			return verified{}, err
		}
		if r.Seq != next {
			return verified{}, errkind.Errorf(errkind.Integrity, "log export: entry %d stands where %d belongs", r.Seq, next)
		}
		v.Records = append(v.Records, r)
		frontier = push(frontier, next, leafHash(line))
		next++
	}
	if next != v.Last+1 {
		return verified{}, errkind.Errorf(errkind.Integrity, "log export: it ends with entry %d instead of %d", next-1, v.Last)
	}
	c, err := ParseCheckpoint(v.checkpoint, key)
	if err != nil {
		return verified{}, errkind.Errorf(errkind.Integrity, "log export: %w", err)
	}
	v.Root = root(frontier)
	if c.Origin != v.Origin || c.Size != next || c.Root != v.Root {
		return verified{}, errkind.Errorf(errkind.Integrity, "log export: the entries are not those that were signed")
	}
	return v, nil
}

// parseExport takes the file apart; nothing in it is believed yet.
func parseExport(text []byte) (v verified, err error) {
	head, rest, ok := bytes.Cut(text, []byte("\n\n"))
	if !ok {
		return verified{}, errkind.Errorf(errkind.Invalid, "log export: it is cut off")
	}
	body, checkpoint, ok := bytes.Cut(rest, []byte("\n\n"))
	if !ok {
		return verified{}, errkind.Errorf(errkind.Invalid, "log export: it is cut off")
	}
	v.lines, v.checkpoint = bytes.Split(body, []byte("\n")), checkpoint
	f, err := fields(string(head), exportTitle, "Origin", "First", "Last", "Previous", "Certificate")
	if err != nil {
		return verified{}, err
	}
	v.Origin = f[0]
	if v.First, err = number(f[1]); err != nil {
		return verified{}, err
	}
	if v.Last, err = number(f[2]); err != nil {
		return verified{}, err
	}
	if v.before, err = hashes(f[3]); err != nil {
		return verified{}, err
	}
	if f[4] != none {
		v.Certificate = f[4]
	}
	if len(v.before) != frontierLen(v.First) {
		return verified{}, errkind.Errorf(errkind.Integrity, "log export: the hashes of the entries before %d do not fit", v.First)
	}
	v.Previous = root(v.before)
	return v, nil
}

// Proved is what the proof of one entry proves.
type Proved struct {
	Checkpoint
	Record Record
}

// VerifyProof checks the proof of one entry, as Log.Prove describes it, against
// the log's key.
func VerifyProof(text []byte, key ed25519.PublicKey) (Proved, error) {
	head, checkpoint, ok := bytes.Cut(text, []byte("\n\n"))
	if !ok {
		return Proved{}, errkind.Errorf(errkind.Invalid, "log proof: it is cut off")
	}
	f, err := fields(string(head), proofTitle, "Entry", "Path", "Certificate")
	if err != nil {
		return Proved{}, err
	}
	r, err := ParseRecord([]byte(f[0]))
	if err != nil {
		return Proved{}, err
	}
	path, err := hashes(f[1])
	if err != nil {
		return Proved{}, err
	}
	c, err := ParseCheckpoint(checkpoint, key)
	if err != nil {
		return Proved{}, errkind.Errorf(errkind.Integrity, "log proof: %w", err)
	}
	if got, ok := rootFromPath(leafHash([]byte(f[0])), r.Seq, c.Size, path); !ok || got != c.Root {
		return Proved{}, errkind.Errorf(errkind.Integrity, "log proof: the entry is not in the log that was signed")
	}
	return Proved{Checkpoint: c, Record: r}, nil
}

// fields reads a header that has exactly the given names, in this order.
func fields(head, title string, names ...string) ([]string, error) {
	lines := strings.Split(head, "\n")
	if lines[0] != title {
		return nil, errkind.Errorf(errkind.Invalid, "the file does not begin with %q", title)
	}
	if len(lines) != 1+len(names) {
		return nil, errkind.Errorf(errkind.Invalid, "%s: its head has %d lines instead of %d", title, len(lines), 1+len(names))
	}
	out := make([]string, len(names))
	for i, name := range names {
		v, ok := strings.CutPrefix(lines[1+i], name+": ")
		if !ok || v == "" {
			return nil, errkind.Errorf(errkind.Invalid, "%s: line %d is not %q", title, i+2, name)
		}
		out[i] = v
	}
	return out, nil
}

func number(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, errkind.Errorf(errkind.Invalid, "%q is not a sequence number", s)
	}
	return n, nil
}

func hashes(s string) ([]hash, error) {
	if s == none {
		return nil, nil
	}
	var out []hash
	for w := range strings.SplitSeq(s, " ") {
		p, err := base64.StdEncoding.Strict().DecodeString(w)
		if err != nil || len(p) != hashSize || len(out) == 64 {
			return nil, errkind.Errorf(errkind.Invalid, "malformed list of hashes")
		}
		out = append(out, hash(p))
	}
	return out, nil
}
