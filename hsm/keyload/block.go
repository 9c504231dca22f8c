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

// Dearmor returns the lines between the guards of the only block of that name
// in text. Whatever is around the block, such as the rest of an e-mail, is
// ignored; so are CR, blank lines and blanks at the ends of lines.
func Dearmor(name, text string) ([]string, error) {
	if len(text) > maxText {
		return nil, errkind.Errorf(errkind.Invalid, "the text is longer than %d bytes", maxText)
	}
	var lines []string
	inside, found := false, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == beginLine(name):
			if found {
				return nil, errkind.Errorf(errkind.Invalid, "the text has more than one %s block; paste only one", name)
			}
			inside, found = true, true
		case line == endLine(name):
			if !inside {
				return nil, errkind.Errorf(errkind.Invalid, "the END line of the %s block comes before its BEGIN line", name)
			}
			inside = false
		case inside && line != "":
			lines = append(lines, line)
		}
	}
	if !found {
		return nil, errkind.Errorf(errkind.Invalid,
			"the text has no line %q; include the BEGIN and END lines", beginLine(name))
	}
	if inside {
		return nil, errkind.Errorf(errkind.Invalid, "the text has no line %q; it is cut short", endLine(name))
	}
	return lines, nil
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
