// Package armor is the form of every signed text file of Tesserae: tenant
// requests, VCM files, warrants, licences.
//
// # Form
//
// A document is a title line, then one "Name: value" line a field. A value of
// several lines continues on lines that begin with one space. Text is printable
// ASCII, lines end in a single newline, names are unique, nothing is padded.
// The signature follows directly: an SSHSIG over all bytes before its BEGIN
// line, armored exactly as ssh-keygen does it.
//
//	tesserae tenant request
//	Kind: create
//	Name: shop-7
//	-----BEGIN SSH SIGNATURE-----
//	U1NIU0lH...
//	-----END SSH SIGNATURE-----
//
// A document has exactly one byte form: Parse and Split refuse what Marshal and
// Sign would not print, so that what a person reads, what a program parses and
// what was signed are the same bytes. The part before the signature can be
// checked with ssh-keygen:
//
//	sed '/^-----BEGIN SSH/,$d' FILE | ssh-keygen -Y verify -f ALLOWED -I ID -n NAMESPACE -s SIG
package armor

import (
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// MaxSize is the largest file that is read, signature included.
const MaxSize = 64 << 10

const (
	maxName   = 64
	maxFields = 512
)

// Field is one named value of a document.
type Field struct{ Name, Value string }

// Document is a title and its fields in order.
type Document struct {
	Title  string
	Fields []Field
}

// Get returns the value of the field called name.
func (d Document) Get(name string) (string, bool) {
	for _, f := range d.Fields {
		if f.Name == name {
			return f.Value, true
		}
	}
	return "", false
}

// Marshal returns the document's only byte form.
func (d Document) Marshal() ([]byte, error) {
	if err := checkLine(d.Title); err != nil || d.Title == "" {
		return nil, errkind.Errorf(errkind.Invalid, "title %.40q must be one line of printable ASCII without outer spaces", d.Title)
	}
	if len(d.Fields) > maxFields {
		return nil, errkind.Errorf(errkind.Invalid, "%d fields; at most %d fit a document", len(d.Fields), maxFields)
	}
	var b strings.Builder
	b.WriteString(d.Title + "\n")
	seen := make(map[string]bool, len(d.Fields))
	for _, f := range d.Fields {
		if err := checkName(f.Name); err != nil {
			return nil, err
		}
		if seen[f.Name] {
			return nil, errkind.Errorf(errkind.Invalid, "field %q occurs twice", f.Name)
		}
		seen[f.Name] = true
		if err := writeValue(&b, f); err != nil {
			return nil, err
		}
	}
	if b.Len() > MaxSize {
		return nil, errkind.Errorf(errkind.Invalid, "document of %d bytes is larger than %d", b.Len(), MaxSize)
	}
	return []byte(b.String()), nil
}

func writeValue(b *strings.Builder, f Field) error {
	b.WriteString(f.Name + ":")
	if f.Value == "" {
		b.WriteString("\n")
		return nil
	}
	for _, line := range strings.Split(f.Value, "\n") {
		if err := checkLine(line); err != nil {
			return errkind.Errorf(errkind.Invalid, "field %s: %w", f.Name, err)
		}
		if line == "" {
			return errkind.Errorf(errkind.Invalid, "field %s: a value has no empty line", f.Name)
		}
		b.WriteString(" " + line + "\n")
	}
	return nil
}

func checkName(name string) error {
	ok := name != "" && len(name) <= maxName && isLetter(name[0])
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = isLetter(c) || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_'
	}
	if !ok {
		return errkind.Errorf(errkind.Invalid, "%.70q is no field name: a letter, then letters, digits, '-', '.', '_'", name)
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func checkLine(line string) error {
	for i := 0; i < len(line); i++ {
		if c := line[i]; c < 0x20 || c > 0x7e {
			return errkind.Errorf(errkind.Invalid, "byte 0x%02x at column %d is not printable ASCII", c, i+1)
		}
	}
	if line != strings.TrimSpace(line) {
		return errkind.Errorf(errkind.Invalid, "outer spaces in %.40q", line)
	}
	return nil
}
