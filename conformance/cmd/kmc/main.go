// Command kmc is a test Key Management Centre. It is for tests and
// demonstrations only: its keys are test keys, in clear in its folder.
package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func main() { console.Main(App) }

// App is the command line of kmc.
func App(env *console.Env) *cli.App {
	return &cli.App{
		Name:  "kmc",
		Usage: "a test Key Management Centre (test keys only)",
		Commands: []*cli.Command{
			initCommand(env),
			pubkeyCommand(env),
			rootCommand(env),
			moduleCommand(env),
			sgcCommand(env),
			authoriseCommand(env),
			revokeCommand(env),
			answerCommand(env),
			refreshCommand(env),
			keyCommand(env),
		},
	}
}

// maxInput bounds a text file that a command reads.
const maxInput = 4 << 20

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Required: true, Usage: "`FOLDER` of the KMC"}
}

func outFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: "out", Usage: "`FILE` for " + what + " (default: standard output)"}
}

func open(c *cli.Context) (*kmc.KMC, error) {
	if _, err := console.NArgs(c); err != nil {
		return nil, err
	}
	return kmc.Open(c.String("dir"), rand.Reader)
}

func readInput(path string) (string, error) {
	raw, err := atomicfile.Read(path, maxInput)
	if os.IsNotExist(err) {
		return "", errkind.Errorf(errkind.NotFound, "there is no file %s", path)
	}
	if err != nil {
		return "", errkind.Errorf(errkind.Invalid, "read %s: %w", path, err)
	}
	return string(raw), nil
}

// output writes a text to --out, or to standard output.
func output(env *console.Env, c *cli.Context, text string) error {
	path := c.String("out")
	if path == "" {
		_, err := fmt.Fprint(env.Stdout, text)
		return err
	}
	if err := atomicfile.Write(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// dayFlag reads a flag that names a day.
func dayFlag(c *cli.Context, name string, otherwise time.Time) (time.Time, error) {
	return timeFlag(c, name, otherwise, time.DateOnly, "20060102")
}

// instantFlag reads a flag that names an instant, or the beginning of a day.
func instantFlag(c *cli.Context, name string, otherwise time.Time) (time.Time, error) {
	return timeFlag(c, name, otherwise, time.RFC3339, "20060102150405", time.DateOnly, "20060102")
}

func timeFlag(c *cli.Context, name string, otherwise time.Time, layouts ...string) (time.Time, error) {
	text := c.String(name)
	if text == "" {
		return otherwise, nil
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, console.Usagef("--%s %q is not a time; write it like 2026-12-31", name, text)
}
