package main

import (
	"encoding/json"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func showCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:   "show",
		Usage:  "show the meter's registers and attributes, never its key",
		Flags:  []cli.Flag{stateFlag(), console.JSONFlag()},
		Action: func(c *cli.Context) error { return runShow(env, c) },
	}
}

func runShow(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	m, err := meter.Load(c.String("state"))
	if err != nil {
		return err
	}
	public := m.State()
	public.Key = ""
	if public.Pending != nil {
		for i := range public.Pending.Sections {
			public.Pending.Sections[i].Key = ""
		}
	}
	return env.Print(c, public, func(w io.Writer) error {
		var pairs [][2]string
		for _, f := range m.Overview() {
			pairs = append(pairs, [2]string{f.Name, f.Value})
		}
		console.Fields(w, pairs...)
		return nil
	})
}

func printLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
