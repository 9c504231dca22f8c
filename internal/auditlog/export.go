package auditlog

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	exportTitle = "Tesserae log export"
	proofTitle  = "Tesserae log proof"
	none        = "-"
)

// Export is one exported, signed stretch of the log.
type Export struct {
	First uint64
	Count int    // entries First..First+Count-1; 0: nothing to export, no text
	Text  []byte // see Verify
	More  bool   // there are further entries to export
}

// Export returns entries from seq on and notes that they were exported. Without
// saved it begins at the first entry that was not exported, and refuses an
// earlier from, except 0; with saved it begins at from or the oldest entry that
// is here. Text holds about maxBytes, and at least one entry. The entries up to
// the one that was the newest when the call began are exported.
//
// The file's form:
//
//	Tesserae log export
//	Origin: name of the log
//	First: sequence number of the first entry
//	Last: sequence number of the last entry
//	Previous: hashes that stand for all entries before First
//	Certificate: the log key, certified by the unit
//
//	one line an entry
//
//	checkpoint of the log up to Last
func (l *Log) Export(b Bucket, from uint64, saved bool, maxBytes int) (Export, error) {
	st, err := loadState(b)
	if err != nil {
		return Export{}, err
	}
	switch {
	case saved:
		from = max(from, st.first)
	case from != 0 && from < st.exported:
		return Export{}, errkind.Errorf(errkind.Refused,
			"log entries up to %d were exported before: export from %d on, or the saved ones again", st.exported-1, st.exported)
	default:
		from = max(from, st.exported)
	}
	if from > st.size {
		return Export{}, errkind.Errorf(errkind.Invalid, "the log's next entry is %d, it cannot be exported from %d on", st.size, from)
	}
	if from == st.size {
		return Export{First: from}, nil
	}
	f, err := st.leaves(b).frontier(from)
	if err != nil {
		return Export{}, err
	}
	var lines bytes.Buffer
	previous := words(f)
	next := from
	for next < st.size && (next == from || lines.Len() < maxBytes) {
		line, err := loadLine(b, next)
		if err != nil {
			return Export{}, err
		}
		lines.Write(line)
		lines.WriteByte('\n')
		f = push(f, next, leafHash(line))
		next++
	}
	out := Export{First: from, Count: int(next - from), More: next < st.size}
	head := header(exportTitle, "Origin", l.origin, "First", strconv.FormatUint(from, 10), "Last", strconv.FormatUint(next-1, 10),
		"Previous", previous, "Certificate", orNone(l.certificate))
	out.Text = fmt.Appendf(nil, "%s\n%s\n%s", head, lines.Bytes(), l.sign(next, root(f)))
	if next > st.exported {
		st.exported = next
		if err := st.save(b, new([]byte)); err != nil {
			return Export{}, err
		}
	}
	return out, nil
}

// Expire removes the entries up to and including seq, which must have been
// exported, and returns how many it removed.
func (l *Log) Expire(b Bucket, seq uint64) (removed int, err error) {
	st, err := loadState(b)
	if err != nil {
		return 0, err
	}
	switch {
	case seq >= st.size:
		return 0, errkind.Errorf(errkind.NotFound, "the log has no entry %d yet", seq)
	case seq >= st.exported:
		return 0, errkind.Errorf(errkind.Refused, "log entries from %d on were not exported yet: export them first", st.exported)
	}
	for ; st.first <= seq; st.first++ {
		line, err := loadLine(b, st.first)
		if err != nil {
			return 0, err
		}
		st.expired = push(st.expired, st.first, leafHash(line))
		if err := b.Delete(entryKey(st.first)); err != nil {
			return 0, err
		}
		removed++
	}
	return removed, st.save(b, new([]byte))
}

// Prove returns a proof, as text, that the entry seq is in the log:
//
//	Tesserae log proof
//	Entry: the entry's line
//	Path: hashes, the nearest sibling first
//	Certificate: the log key, certified by the unit
//
//	checkpoint
func (l *Log) Prove(b Bucket, seq uint64) ([]byte, error) {
	st, err := loadState(b)
	if err != nil {
		return nil, err
	}
	line, err := loadLine(b, seq)
	if err != nil {
		return nil, err
	}
	path, err := st.leaves(b).path(seq, st.size)
	if err != nil {
		return nil, err
	}
	return proof(line, path, l.certificate, l.sign(st.size, root(st.frontier))), nil
}

func proof(line []byte, path []hash, certificate string, checkpoint []byte) []byte {
	head := header(proofTitle, "Entry", string(line), "Path", words(path), "Certificate", orNone(certificate))
	return fmt.Appendf(nil, "%s\n%s", head, checkpoint)
}

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

func header(title string, namesAndValues ...string) string {
	var s strings.Builder
	s.WriteString(title + "\n")
	for i := 0; i < len(namesAndValues); i += 2 {
		s.WriteString(namesAndValues[i] + ": " + namesAndValues[i+1] + "\n")
	}
	return s.String()
}

func words(hashes []hash) string {
	if len(hashes) == 0 {
		return none
	}
	out := make([]string, len(hashes))
	for i, h := range hashes {
		out[i] = base64.StdEncoding.EncodeToString(h[:])
	}
	return strings.Join(out, " ")
}
