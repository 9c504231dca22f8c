package armor

import (
	"bytes"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Parse reads a document whose title must be title. The error names the line
// that Marshal would not have printed.
func Parse(message []byte, title string) (Document, error) {
	if len(message) > MaxSize {
		return Document{}, errkind.Errorf(errkind.Invalid, "document of %d bytes is larger than %d", len(message), MaxSize)
	}
	if len(message) == 0 {
		return Document{}, errkind.Errorf(errkind.Invalid, "the document is empty")
	}
	if i := bytes.IndexByte(message, '\r'); i >= 0 {
		return Document{}, lineErrorf(1+bytes.Count(message[:i], []byte{'\n'}), "carriage return: lines end in a newline alone")
	}
	if message[len(message)-1] != '\n' {
		return Document{}, errkind.Errorf(errkind.Invalid, "the last line does not end in a newline: the file is cut off or was edited")
	}
	lines := strings.Split(strings.TrimSuffix(string(message), "\n"), "\n")
	if lines[0] != title {
		return Document{}, lineErrorf(1, "is %.60q, want %q", lines[0], title)
	}
	d := Document{Title: title}
	seen := map[string]int{}
	for i, line := range lines[1:] {
		if err := d.addLine(i+2, line, seen); err != nil {
			return Document{}, err
		}
	}
	again, err := d.Marshal()
	if err != nil {
		return Document{}, err
	}
	if !bytes.Equal(again, message) {
		return Document{}, lineErrorf(differs(again, message), "is not in its only valid form")
	}
	return d, nil
}

func (d *Document) addLine(n int, line string, seen map[string]int) error {
	if rest, ok := strings.CutPrefix(line, " "); ok {
		if len(d.Fields) == 0 || d.Fields[len(d.Fields)-1].Value == "" {
			return lineErrorf(n, "begins with a space but continues no value")
		}
		if err := checkLine(rest); err != nil || rest == "" {
			return lineErrorf(n, "a continued value has one leading space, no trailing one, and printable ASCII: %.60q", line)
		}
		d.Fields[len(d.Fields)-1].Value += "\n" + rest
		return nil
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return lineErrorf(n, "%.60q is no \"Name: value\"", line)
	}
	if err := checkName(name); err != nil {
		return lineErrorf(n, "%w", err)
	}
	if first, dup := seen[name]; dup {
		return lineErrorf(n, "field %s is already on line %d", name, first)
	}
	seen[name] = n
	if value != "" {
		if value, ok = strings.CutPrefix(value, " "); !ok || value == "" {
			return lineErrorf(n, "field %s: exactly one space belongs between the colon and the value", name)
		}
	}
	if err := checkLine(value); err != nil {
		return lineErrorf(n, "field %s: %w", name, err)
	}
	if len(d.Fields) == maxFields {
		return lineErrorf(n, "more than %d fields", maxFields)
	}
	d.Fields = append(d.Fields, Field{Name: name, Value: value})
	return nil
}

func lineErrorf(n int, format string, args ...any) error {
	return errkind.Errorf(errkind.Invalid, "line %d: "+format, append([]any{n}, args...)...)
}

// differs returns the first line in which b differs from a.
func differs(a, b []byte) int {
	line := 1
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			break
		}
		if a[i] == '\n' {
			line++
		}
	}
	return line
}
