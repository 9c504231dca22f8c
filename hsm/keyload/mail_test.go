package keyload

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// mailedKLF has a name with blanks, where mailers like to wrap.
func mailedKLF(t *testing.T) KLF {
	t.Helper()
	k := vectorKLF(t)
	rec := k.Keys[0]
	for i := range rec.Fields {
		if rec.Fields[i].Tag == "SGN" {
			rec.Fields[i].Value = "The Town of > Example"
		}
	}
	if rec.Get("SGN") == "" {
		t.Fatal("the vector's key has no name")
	}
	return k
}

// hard wraps every line at a width, soft at the last blank before it if there is
// one, as mailers do.
func hard(text string, width int) string {
	var out strings.Builder
	for _, line := range strings.Split(text, "\n") {
		for len(line) > width {
			out.WriteString(line[:width] + "\n")
			line = line[width:]
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

func soft(text string, width int) string {
	var out strings.Builder
	for _, line := range strings.Split(text, "\n") {
		for len(line) > width {
			cut := strings.LastIndexByte(line[:width], ' ')
			if strings.HasPrefix(line, "-----") {
				break
			}
			if cut < 0 {
				cut = strings.IndexByte(line, ' ')
			}
			if cut < 0 {
				break
			}
			out.WriteString(line[:cut] + "\n")
			line = line[cut+1:]
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

func quote(text, mark string) string {
	return mark + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+mark) + "\n"
}

// What mailers do to a key load file does not keep it from being read.
func TestMailedKLF(t *testing.T) {
	t.Parallel()
	k := mailedKLF(t)
	text := k.Text()
	mails := map[string]string{
		"quoted":                  "On Monday you wrote:\n" + quote(text, "> ") + "\nthank you",
		"quoted twice":            quote(quote(text, ">"), "> "),
		"quoted without blanks":   quote(text, ">"),
		"CR LF, blanks, indented": strings.ReplaceAll(quote(text, "\t "), "\n", " \t\r\n"),
		"an old one quoted":       "see below\n" + text + quote("95000289050716STS04A600123456789ABCDEF123456\n", "> "),
		"wrapped, then quoted":    quote(hard(text, 72), "> "),
		"quoted, then wrapped":    hard(quote(text, ">> "), 90),
		"a blank line in between": strings.ReplaceAll(hard(text, 100), "\n", "\n\n"),
	}
	for width := len(beginLine(BlockKLF)); width < 130; width++ {
		mails[fmt.Sprintf("wrapped at %d", width)] = hard(text, width)
	}
	for width := 200; width < 290; width += 3 {
		mails[fmt.Sprintf("wrapped between words at %d", width)] = soft(text, width)
	}
	for name, mail := range mails {
		got, err := ParseKLF(mail)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, mail)
		} else if got.Text() != text {
			t.Errorf("%s: read as\n%s", name, got.Text())
		}
	}
}

// What cannot be put together is refused, with what to do.
func TestMailedKLFRefused(t *testing.T) {
	t.Parallel()
	text := mailedKLF(t).Text()
	for name, c := range map[string]struct{ mail, says string }{
		"a line is missing":    {strings.Join(drop(strings.SplitAfter(hard(text, 60), "\n"), 9), ""), "have it sent as an attached file"},
		"two blanks are gone":  {strings.Replace(text, "The Town of > ", "The\nTown\nof >\n", 1), "record 3 of the KLF block was wrapped or changed on its way"},
		"a character is gone":  {strings.Replace(hard(text, 60), "VK.WRAP.1", "VK.WRAP", 1), "was wrapped or changed"},
		"quoted printable":     {strings.ReplaceAll(hard(text, 75), "\n", "=\n"), "include the BEGIN and END lines"},
		"wrapped beyond sense": {strings.ReplaceAll(hard(text, 30), "", "\n"), "include the BEGIN and END lines"},
		"letter by letter":     {beginLine(BlockKLF) + strings.ReplaceAll(strings.Split(text, "\n")[2], "", "\n") + endLine(BlockKLF), "was wrapped or changed"},
		"without a CRC":        {Armor(BlockKLF, "a", "b"), "was wrapped or changed"},
		"the guard is wrapped": {hard(text, 12), "include the BEGIN and END lines"},
	} {
		if _, err := ParseKLF(c.mail); !errkind.Is(err, errkind.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func drop(lines []string, i int) []string { return append(lines[:i:i], lines[i+1:]...) }

// Wherever a record is cut but at a blank, it is read as it was.
func TestWrappedRecords(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := strings.TrimSpace(rapid.StringMatching(`[!-:<-}][ -:<-}]{0,38}`).Draw(t, "name"))
		rec := NewRecord(TypeWrappedKey, "KID", "0001", "SGN", name, "WVK", rapid.StringMatching(`[0-9A-F]{64}`).Draw(t, "key"))
		text := rec.String()
		var mail strings.Builder
		cuts := 0
		for i := range len(text) {
			if i > 0 && text[i] != ' ' && text[i-1] != ' ' && cuts < maxWraps-1 && rapid.IntRange(0, 9).Draw(t, "cut") == 0 {
				mail.WriteString("\n")
				cuts++
			}
			mail.WriteByte(text[i])
		}
		lines, err := Dearmor("X", Armor("X", mail.String()))
		if err != nil || len(lines) != 1 || lines[0] != text {
			t.Fatalf("%q became %q, %v", mail.String(), lines, err)
		}
	})
}
