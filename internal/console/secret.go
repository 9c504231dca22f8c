package console

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const maxSecret = 4096

// Secret reads a secret without ever taking it from the command line: from
// file ("-" is standard input, one line), or from a prompt on the terminal,
// asked twice when confirm is set.
func (e *Env) Secret(prompt, file string, confirm bool) (string, error) {
	switch file {
	case "":
		return e.ask(prompt, confirm)
	case "-":
		return firstLine(e.Stdin)
	}
	p, err := atomicfile.Read(file, maxSecret)
	if err != nil {
		return "", errkind.Errorf(errkind.Invalid, "read secret: %w", err)
	}
	return firstLine(strings.NewReader(string(p)))
}

func (e *Env) ask(prompt string, confirm bool) (string, error) {
	tty, ok := e.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return "", Usagef("standard input is no terminal: give the secret with a --…-file option ('-' reads standard input)")
	}
	secret, err := e.hidden(tty, prompt)
	if err != nil || !confirm {
		return secret, err
	}
	again, err := e.hidden(tty, "Repeat: ")
	if err != nil {
		return "", err
	}
	if again != secret {
		return "", errkind.Errorf(errkind.Invalid, "the two entries differ; nothing was changed")
	}
	return secret, nil
}

func (e *Env) hidden(tty *os.File, prompt string) (string, error) {
	fmt.Fprint(e.Stderr, prompt)
	p, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(e.Stderr)
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	return string(p), nil
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxSecret)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read secret: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errkind.Errorf(errkind.Invalid, "the secret is empty")
	}
	return line, nil
}
