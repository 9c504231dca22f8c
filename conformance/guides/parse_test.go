package guides_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/guides"
)

func TestParse(t *testing.T) {
	t.Parallel()
	g, err := guides.Parse("Text.\n```sh tenant\n$ one --a \\\n    --b\nfirst … last\n$ two # exit 3\n```\n" +
		"```sh provider daemon\n$ d run # until d.sock\n```\n```go\npackage x\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []guides.Command{
		{Line: 3, Role: "tenant", Text: "one --a --b", Output: []string{"first … last"}},
		{Line: 6, Role: "tenant", Text: "two", Exit: 3},
		{Line: 9, Role: "provider", Daemon: true, Text: "d run", Until: "d.sock"},
	}
	if !slices.EqualFunc(g.Commands, want, func(a, b guides.Command) bool {
		return a.Line == b.Line && a.Role == b.Role && a.Daemon == b.Daemon && a.Text == b.Text && a.Exit == b.Exit && a.Until == b.Until &&
			slices.Equal(a.Output, b.Output)
	}) {
		t.Errorf("%+v", g.Commands)
	}
	if len(g.Blocks) != 1 || g.Blocks[0].Info != "go" || g.Blocks[0].Text != "package x\n" {
		t.Errorf("%+v", g.Blocks)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"```sh\n$ a\n```":                   "outside a terminal",
		"```\n$ a\n```":                     "outside a terminal",
		"```sh nobody\n$ a\n```":            "names no role",
		"```sh tenant twice\n$ a\n```":      "names no role",
		"```sh tenant\nout\n$ a\n```":       "output before any command",
		"```sh tenant\n$ a":                 "not closed",
		"```sh tenant daemon\n$ a\n```":     "# until FILE",
		"```sh tenant\n$ a # until x\n```":  "# until FILE",
		"```sh tenant\n$ a # exit 300\n```": "exit code 300",
	} {
		if _, err := guides.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	const output = "UUID        : 1234\nSTATE : running\nlast\n"
	for _, test := range []struct {
		pieces []string
		ok     bool
	}{
		{nil, true},
		{[]string{"UUID : …", "running"}, true},
		{[]string{"UUID : … STATE"}, false}, // … stays in its line
		{[]string{"running", "UUID"}, false},
		{[]string{"stopped"}, false},
		{[]string{"running", "running"}, false},
	} {
		if err := (guides.Command{Output: test.pieces}).Check(output); (err == nil) != test.ok {
			t.Errorf("%q: %v", test.pieces, err)
		}
	}
}
