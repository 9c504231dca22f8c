package console

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// YesFlag is --yes.
func YesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask for confirmation"}
}

// Confirm asks whether to do what cannot be undone. Without --yes and without a
// terminal to ask on, the answer is an error.
func (e *Env) Confirm(c *cli.Context, question string) error {
	if c.Bool("yes") {
		return nil
	}
	if !terminal(e.Stdin) {
		return Usagef("%s Standard input is no terminal: add --yes if that is meant", question)
	}
	fmt.Fprintf(e.Stderr, "%s [yes/no]: ", question)
	line, err := bufio.NewReader(io.LimitReader(e.Stdin, 64)).ReadString('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.ToLower(strings.TrimSpace(line)) != "yes" {
		return errkind.Errorf(errkind.Refused, "not confirmed; nothing was changed")
	}
	return nil
}

// Interactive reports whether somebody watches the output.
func (e *Env) Interactive() bool { return terminal(e.Stderr) }

func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
