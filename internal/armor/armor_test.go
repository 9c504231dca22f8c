package armor_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const title = "tesserae test"

func TestMarshalForm(t *testing.T) {
	t.Parallel()
	d := armor.Document{Title: title, Fields: []armor.Field{
		{Name: "Kind", Value: "create"}, {Name: "Empty"}, {Name: "Text", Value: "one\ntwo: 2\n-----BEGIN SSH SIGNATURE-----"},
	}}
	got, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	want := "tesserae test\nKind: create\nEmpty:\nText: one\n two: 2\n -----BEGIN SSH SIGNATURE-----\n"
	if string(got) != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	back, err := armor.Parse(got, title)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := back.Get("Text"); !ok || v != d.Fields[2].Value {
		t.Errorf("Text = %q, %v", v, ok)
	}
	if _, ok := back.Get("Nothing"); ok {
		t.Error("a field that is not there was found")
	}
}

func TestMarshalRefuses(t *testing.T) {
	t.Parallel()
	one := func(name, value string) armor.Document {
		return armor.Document{Title: title, Fields: []armor.Field{{Name: name, Value: value}}}
	}
	many := armor.Document{Title: title, Fields: make([]armor.Field, 513)}
	for what, tc := range map[string]struct {
		doc  armor.Document
		want string
	}{
		"no title":        {armor.Document{}, "title"},
		"title two lines": {armor.Document{Title: "a\nb"}, "title"},
		"empty name":      {one("", "x"), "no field name"},
		"space in name":   {one("a b", "x"), "no field name"},
		"digit first":     {one("1a", "x"), "no field name"},
		"long name":       {one(strings.Repeat("a", 65), "x"), "no field name"},
		"tab":             {one("a", "x\ty"), "0x09 at column 2"},
		"not ASCII":       {one("a", "é"), "not printable ASCII"},
		"carriage return": {one("a", "x\r"), "0x0d"},
		"leading space":   {one("a", " x"), "outer spaces"},
		"trailing space":  {one("a", "x\ny "), "outer spaces"},
		"empty line":      {one("a", "x\n\ny"), "no empty line"},
		"ends in newline": {one("a", "x\n"), "no empty line"},
		"duplicate":       {armor.Document{Title: title, Fields: []armor.Field{{Name: "a"}, {Name: "a"}}}, "twice"},
		"too many fields": {many, "513 fields"},
		"too large":       {one("a", strings.Repeat("x", armor.MaxSize)), "larger than"},
	} {
		_, err := tc.doc.Marshal()
		wantInvalid(t, what, err, tc.want)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct{ text, want string }{
		"empty":                 {"", "is empty"},
		"cut off":               {"tesserae test\nA: b", "does not end in a newline"},
		"other title":           {"tesserae toast\nA: b\n", "line 1: is \"tesserae toast\""},
		"carriage return":       {"tesserae test\r\nA: b\r\n", "line 1: carriage return"},
		"later carriage return": {"tesserae test\nA: b\r\n", "line 2: carriage return"},
		"no colon":              {"tesserae test\nA: b\nhello\n", "line 3:"},
		"empty line":            {"tesserae test\nA: b\n\n", "line 3:"},
		"no space":              {"tesserae test\nA:b\n", "line 2: field A: exactly one space"},
		"two spaces":            {"tesserae test\nA:  b\n", "line 2: field A: outer spaces"},
		"space and nothing":     {"tesserae test\nA: \n", "line 2: field A: exactly one space"},
		"trailing space":        {"tesserae test\nA: b \n", "line 2: field A: outer spaces"},
		"space before colon":    {"tesserae test\nA : b\n", "line 2:"},
		"duplicate":             {"tesserae test\nA: b\nC: d\nA: b\n", "line 4: field A is already on line 2"},
		"continues nothing":     {"tesserae test\n A: b\n", "line 2: begins with a space"},
		"continues empty":       {"tesserae test\nA:\n b\n", "line 3: begins with a space"},
		"continued two spaces":  {"tesserae test\nA: b\n  c\n", "line 3: a continued value"},
		"continued empty":       {"tesserae test\nA: b\n \n", "line 3: a continued value"},
		"NUL":                   {"tesserae test\nA: b\x00\n", "line 2: field A: byte 0x00"},
		"too large":             {"tesserae test\n" + strings.Repeat("A", armor.MaxSize), "larger than"},
	} {
		_, err := armor.Parse([]byte(tc.text), title)
		wantInvalid(t, what, err, tc.want)
	}
}

func wantInvalid(t *testing.T, what string, err error, text string) {
	t.Helper()
	if !errkind.Is(err, errkind.Invalid) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: error %v (kind %v), want invalid with %q", what, err, errkind.Of(err), text)
	}
}

func TestParseIsTheInverseOfMarshal(t *testing.T) {
	t.Parallel()
	line := rapid.StringMatching(`[!-~]([ -~]{0,30}[!-~])?`)
	rapid.Check(t, func(t *rapid.T) {
		d := armor.Document{Title: line.Draw(t, "title")}
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[A-Za-z][A-Za-z0-9._-]{0,20}`), 0, 8, rapid.ID[string]).Draw(t, "names")
		for _, name := range names {
			lines := rapid.SliceOfN(line, 0, 4).Draw(t, "lines")
			d.Fields = append(d.Fields, armor.Field{Name: name, Value: strings.Join(lines, "\n")})
		}
		text, err := d.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := armor.Parse(text, d.Title)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		again, err := back.Marshal()
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("round trip gave\n%s\nof\n%s (%v)", again, text, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("tesserae test\nA: b\n"))
	f.Add([]byte("tesserae test\nA: b\n c\nD:\n"))
	f.Add([]byte("tesserae test\r\nA: b\n  c\nD: \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := armor.Parse(text, title)
		if err != nil {
			return
		}
		again, err := d.Marshal()
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("accepted %q but prints %q (%v)", text, again, err)
		}
	})
}
