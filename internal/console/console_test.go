package console_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// world is a tool's environment whose streams are no terminals.
type world struct {
	*console.Env
	out, err bytes.Buffer
}

func newWorld(stdin string) *world {
	w := &world{}
	w.Env = &console.Env{Stdin: strings.NewReader(stdin), Stdout: &w.out, Stderr: &w.err, Clock: clock.System(), Getenv: func(string) string { return "" }}
	return w
}

// oneApp: apps of urfave/cli share their help flag and command.
var oneApp sync.Mutex

// run gives the action to "tool group verb" and returns the exit code.
func (w *world) run(action cli.ActionFunc, args ...string) int {
	oneApp.Lock()
	defer oneApp.Unlock()
	app := &cli.App{Name: "tool", Action: console.Group, Commands: []*cli.Command{{Name: "group", Subcommands: []*cli.Command{{
		Name: "verb", Action: action,
		Flags: []cli.Flag{console.JSONFlag(), console.YesFlag(), console.TimeoutFlag(), console.VerboseFlag(), console.ForceFlag(),
			&cli.StringFlag{Name: "must", Required: true}},
	}}}}}
	return w.Run(context.Background(), app, append([]string{"tool"}, args...))
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, kind := range errkind.All() {
		w := newWorld("")
		code := w.run(func(*cli.Context) error { return errkind.Errorf(kind, "this went wrong") }, "group", "verb", "--must", "x")
		if code != kind.ExitCode() || w.err.String() != "ERROR: This went wrong\n" || w.out.Len() > 0 {
			t.Errorf("%v: exit %d, %q", kind, code, w.err.String())
		}
	}
	ok := func(*cli.Context) error { return nil }
	for what, tc := range map[string]struct {
		action cli.ActionFunc
		args   []string
		code   int
		text   string
	}{
		"ok":              {ok, []string{"group", "verb", "--must", "x"}, 0, ""},
		"usage error":     {func(*cli.Context) error { return console.Usagef("no") }, []string{"group", "verb", "--must", "x"}, 2, "ERROR: No\n"},
		"missing option":  {ok, []string{"group", "verb"}, 2, "needs --must"},
		"unknown option":  {ok, []string{"group", "verb", "--what"}, 2, "see 'tool group verb --help'"},
		"unknown command": {ok, []string{"group", "noun"}, 2, "unknown command \"noun\""},
		"unknown group":   {ok, []string{"noun"}, 2, "unknown command \"noun\""},
		"group alone":     {ok, []string{"group"}, 0, ""},
		"tool alone":      {ok, nil, 0, ""},
		"help":            {ok, []string{"group", "verb", "--help"}, 0, ""},
	} {
		w := newWorld("")
		if code := w.run(tc.action, tc.args...); code != tc.code || !strings.Contains(strings.ToLower(w.err.String()), strings.ToLower(tc.text)) {
			t.Errorf("%s: exit %d, %q", what, code, w.err.String())
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	show := func(w *world) cli.ActionFunc {
		return func(c *cli.Context) error {
			return w.Print(c, map[string]string{"a": "<b>"}, func(out io.Writer) error {
				console.Fields(out, [2]string{"A", "1"}, [2]string{"LONGER", "2"})
				console.Table(out, []string{"NAME", "VALUE"}, [][]string{{"a", "1"}, {"bb", "22"}})
				return nil
			})
		}
	}
	w := newWorld("")
	w.run(show(w), "group", "verb", "--must", "x", "--json")
	if got := w.out.String(); got != "{\n  \"a\": \"<b>\"\n}\n" {
		t.Errorf("JSON: %q", got)
	}
	w = newWorld("")
	w.run(show(w), "group", "verb", "--must", "x")
	want := "A      : 1\nLONGER : 2\n┌──────┬───────┐\n│ NAME │ VALUE │\n├──────┼───────┤\n│ a    │ 1     │\n│ bb   │ 22    │\n└──────┴───────┘\n"
	if got := w.out.String(); got != want {
		t.Errorf("text:\n%s", got)
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	var w *world
	ask := func(c *cli.Context) error { return w.Confirm(c, "Really?") }
	w = newWorld("yes\n") // a pipe is nobody who could have read the question
	if code := w.run(ask, "group", "verb", "--must", "x"); code != 2 || !strings.Contains(w.err.String(), "--yes") {
		t.Errorf("without a terminal: exit %d, %q", code, w.err.String())
	}
	w = newWorld("")
	if code := w.run(ask, "group", "verb", "--must", "x", "--yes"); code != 0 {
		t.Errorf("--yes: exit %d, %q", code, w.err.String())
	}
}

func TestSecret(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("from file\r\nsecond line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct{ stdin, file, want string }{
		"standard input": {"from stdin\nmore\n", "-", "from stdin"},
		"no newline":     {"from stdin", "-", "from stdin"},
		"file":           {"", file, "from file"},
	} {
		if got, err := newWorld(tc.stdin).Secret("?", tc.file, true); err != nil || got != tc.want {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for what, tc := range map[string]struct{ stdin, file string }{
		"empty": {"\n", "-"}, "no file": {"", file + "x"}, "no terminal": {"typed\n", ""},
	} {
		if got, err := newWorld(tc.stdin).Secret("?", tc.file, false); err == nil {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	w, path := newWorld("from stdin"), filepath.Join(t.TempDir(), "f")
	if err := w.WriteFile(path, []byte("one"), 0o644, false); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFile(path, []byte("two"), 0o644, false); !errkind.Is(err, errkind.Refused) {
		t.Errorf("overwrote: %v", err)
	}
	if err := w.WriteFile(path, []byte("two"), 0o644, true); err != nil {
		t.Error(err)
	}
	if err := w.WriteFile("-", []byte("three"), 0, false); err != nil || w.out.String() != "three" {
		t.Errorf("standard output: %q, %v", w.out.String(), err)
	}
	if err := w.WriteFile(filepath.Join(path, "x"), []byte("x"), 0o644, false); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("into a file: %v", err)
	}
	for _, tc := range []struct {
		path  string
		limit int64
		want  string
		kind  errkind.Kind
	}{
		{path, 3, "two", 0}, {path, 2, "", errkind.Invalid}, {path + "x", 9, "", errkind.NotFound}, {"-", 10, "from stdin", 0},
	} {
		got, err := w.ReadFile(tc.path, tc.limit)
		if string(got) != tc.want || tc.want == "" && !errkind.Is(err, tc.kind) {
			t.Errorf("%s: %q, %v", tc.path, got, err)
		}
	}
	if _, err := newWorld("too long").ReadFile("-", 3); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("long standard input: %v", err)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	for value, ok := range map[string]bool{"2": false, "3": true, "120": true, "121": false} {
		w := newWorld("")
		code := w.run(func(c *cli.Context) error {
			_, err := console.Timeout(c)
			return err
		}, "group", "verb", "--must", "x", "--timeout", value)
		if (code == 0) != ok {
			t.Errorf("--timeout %s: exit %d", value, code)
		}
	}
}

func TestProgressWithoutTerminalIsSilent(t *testing.T) {
	t.Parallel()
	w := newWorld("")
	p := w.NewProgress(10, "working")
	p.Add(5)
	p.End()
	if w.err.Len() > 0 || w.Interactive() {
		t.Errorf("wrote %q", w.err.String())
	}
	if console.Version() == "" {
		t.Error("no version")
	}
}
