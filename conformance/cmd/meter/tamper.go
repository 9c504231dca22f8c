package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func tamperCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:   "tamper",
		Usage:  "set the tamper flag, as opening the meter does",
		Flags:  []cli.Flag{stateFlag()},
		Action: func(c *cli.Context) error { return runTamper(env, c) },
	}
}

func runTamper(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
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
	m.SetTamper()
	if err := m.Save(path); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, "tamper flag set")
	return err
}
