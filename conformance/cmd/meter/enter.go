package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func enterCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:      "enter",
		Usage:     "enter one token, or several such as a key-change set",
		ArgsUsage: "TOKEN...",
		Description: "Digits may be grouped with spaces or dashes, also as separate words.\n" +
			"Tokens are entered in order until one is rejected. With --json one result a line.",
		Flags:  []cli.Flag{stateFlag(), &cli.BoolFlag{Name: "json", Usage: "print each answer as one line of JSON"}},
		Action: func(c *cli.Context) error { return runEnter(env, c) },
	}
}

func runEnter(env *console.Env, c *cli.Context) error {
	tokens, err := split(c.Args().Slice())
	if err != nil {
		return err
	}
	path := c.String("state")
	unlock, err := lock(path)
	if err != nil {
		return err
	}
	defer unlock()
	m, err := meter.Load(path)
	if err != nil {
		return err
	}
	for i, token := range tokens {
		r, err := m.Enter(token, env.Clock.Now())
		if err != nil {
			return err
		}
		// The register is credited on disk before anyone is told.
		if err := m.Save(path); err != nil {
			return err
		}
		if err := printResult(env.Stdout, c.Bool("json"), r, m); err != nil {
			return err
		}
		if !r.Accepted {
			return errkind.Errorf(errkind.Refused, "the meter rejected token %d of %d: %s", i+1, len(tokens), r.Code)
		}
	}
	return nil
}

// split joins words of digits into tokens. A token ends where a word ends, so
// that one missing digit cannot shift all that follow.
func split(words []string) ([]string, error) {
	var tokens []string
	var part strings.Builder
	for _, w := range words {
		w = strings.NewReplacer(" ", "", "-", "").Replace(w)
		if strings.Trim(w, "0123456789") != "" {
			return nil, console.Usagef("%q is no part of a token; options come before tokens", w)
		}
		if n := part.Len() + len(w); n > 20 && (part.Len() > 0 || n%20 != 0) {
			return nil, console.Usagef("%d digits where a token has 20", n)
		}
		part.WriteString(w)
		for part.Len() >= 20 {
			all := part.String()
			tokens = append(tokens, all[:20])
			part.Reset()
			part.WriteString(all[20:])
		}
	}
	switch {
	case part.Len() != 0:
		return nil, console.Usagef("%d digits where a token has 20", part.Len())
	case len(tokens) == 0:
		return nil, console.Usagef("no token given")
	}
	return tokens, nil
}

func printResult(w io.Writer, asJSON bool, r meter.Result, m *meter.Meter) error {
	if asJSON {
		return printLine(w, r)
	}
	if _, err := fmt.Fprintln(w, r); err != nil {
		return err
	}
	for _, l := range r.Display {
		label := l.Name
		if l.Test != 0 {
			label = fmt.Sprintf("%d %s", l.Test, l.Name)
		}
		if _, err := fmt.Fprintf(w, "  %s: %s\n", label, l.Value); err != nil {
			return err
		}
	}
	if balance, ok := m.Balance(r); ok {
		_, err := fmt.Fprintf(w, "  balance: %s\n", balance)
		return err
	}
	return nil
}
