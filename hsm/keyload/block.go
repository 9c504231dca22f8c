package keyload

import (
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Names of the text blocks that travel by e-mail.
const (
	BlockKMCPublicKey = "KMC PUBKEY"
	BlockSMPublicKey  = "SM PUBKEY"
	BlockRequest      = "VKLOADREQ"
	BlockKLF          = "KLF"
	BlockLicence      = "SM LICENSE"
	BlockApprovals    = "KMC APPROVAL LIST"
)

// maxText bounds a pasted or uploaded text: a KLF of several thousand keys.
const maxText = 4 << 20

func beginLine(name string) string { return "-----BEGIN STS " + name + "-----" }
func endLine(name string) string   { return "-----END STS " + name + "-----" }

// Armor puts one record a line between the guards of a block.
func Armor(name string, lines ...string) string {
	return beginLine(name) + "\n" + strings.Join(lines, "\n") + "\n" + endLine(name) + "\n"
}

// Dearmor returns the records between the guards of the only block of that name
// in text. It reads what mailers make of a block: other text around it is ignored,
// and so are CR, blank lines, blanks at the ends of lines and quotation marks ('>')
// in front of them, as many as the BEGIN line has; a record that was wrapped is put
// together where its CRC says how.
func Dearmor(name, text string) ([]string, error) {
	if len(text) > maxText {
		return nil, errkind.Errorf(errkind.Invalid, "the text is longer than %d bytes", maxText)
	}
	var lines []string
	inside, found, depth := false, false, 0
	for line := range strings.Lines(text) {
		bare, quotes := unquote(line, len(line))
		switch {
		case bare == beginLine(name):
			if found {
				return nil, errkind.Errorf(errkind.Invalid, "the text has more than one %s block; paste only one", name)
			}
			inside, found, depth = true, true, quotes
		case bare == endLine(name):
			if !inside {
				return nil, errkind.Errorf(errkind.Invalid, "the END line of the %s block comes before its BEGIN line", name)
			}
			inside = false
		case inside:
			if line, _ = unquote(line, depth); line != "" {
				lines = append(lines, line)
			}
		}
	}
	if !found {
		return nil, errkind.Errorf(errkind.Invalid,
			"the text has no line %q; include the BEGIN and END lines", beginLine(name))
	}
	if inside {
		return nil, errkind.Errorf(errkind.Invalid, "the text has no line %q; it is cut short", endLine(name))
	}
	return unwrap(name, lines)
}

// unquote removes the blanks around a line and up to most quotation marks in
// front of it.
func unquote(line string, most int) (bare string, quotes int) {
	bare = strings.TrimSpace(line)
	for quotes < most && strings.HasPrefix(bare, ">") {
		bare = strings.TrimSpace(bare[1:])
		quotes++
	}
	return bare, quotes
}

// unwrap returns the records of a block's lines. A line that does not end with a
// CRC goes on in the next one.
func unwrap(name string, lines []string) ([]string, error) {
	var records []string
	for at := 0; at < len(lines); {
		end := at + 1
		for end < len(lines) && end-at < maxWraps && !endsRecord(lines[at:end]) {
			end++
		}
		record, ok := join(lines[at:end])
		if !ok {
			return nil, errkind.Errorf(errkind.Invalid, "record %d of the %s block was wrapped or changed on its way; have it sent as an attached file", len(records)+1, name)
		}
		records, at = append(records, record), end
	}
	return records, nil
}

// endsRecord reports whether lines end with a CRC, which may be wrapped itself.
func endsRecord(lines []string) bool {
	tail := ""
	for i := len(lines) - 1; i >= 0 && len(tail) < len(crcTail); i-- {
		tail = lines[i] + tail
	}
	n := len(tail) - len(crcTail)
	return n >= 0 && tail[n:n+4] == crcTail[:4] && isHex(tail[n+4:], 4)
}

const crcTail = ";CRC0000"

// maxWraps is how many lines a mailer may make of a record.
const maxWraps = 64

// join puts a wrapped record together. A mailer that wraps between words takes a
// blank away; records have so few that one at most is missing.
func join(lines []string) (record string, ok bool) {
	record = strings.Join(lines, "")
	if len(lines) == 1 || valid(record) {
		return record, true
	}
	for i := 1; i < len(lines); i++ {
		s := strings.Join(lines[:i], "") + " " + strings.Join(lines[i:], "")
		if !valid(s) {
			continue
		}
		if ok {
			return "", false
		}
		record, ok = s, true
	}
	return record, ok
}

func valid(record string) bool {
	_, err := ParseRecord(record)
	return err == nil
}

// dearmorOne returns the one record of a block.
func dearmorOne(name, text string) (Record, error) {
	lines, err := Dearmor(name, text)
	if err != nil {
		return Record{}, err
	}
	if len(lines) != 1 {
		return Record{}, errkind.Errorf(errkind.Invalid, "the %s block has %d records instead of one", name, len(lines))
	}
	r, err := ParseRecord(lines[0])
	if err != nil {
		return Record{}, errkind.Errorf(errkind.Invalid, "%s block: %w", name, err)
	}
	return r, nil
}

// dearmorOrBare returns the one record of a block, or the text itself where it
// is a bare record of that type.
func dearmorOrBare(name, rectype, text string) (Record, error) {
	if bare := strings.TrimSpace(text); strings.HasPrefix(bare, rectype+";") && !strings.ContainsAny(bare, "\r\n") {
		text = Armor(name, bare)
	}
	return dearmorOne(name, text)
}
