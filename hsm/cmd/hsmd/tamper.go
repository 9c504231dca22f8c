package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func tamperCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "tamper",
		Usage: "cause a tamper event: every key of the unit is lost for ever, also while it runs",
		Flags: []cli.Flag{stateFlag(), guardFlag(), yesFlag()},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			if err := confirmed(c, "destroys every key of the unit for ever"); err != nil {
				return err
			}
			if err := device.Tamper(config(env, c, env.Logger(c))); err != nil {
				return err
			}
			fmt.Fprintln(env.Stdout, "Tamper memory erased. The unit answers nothing but who it is.")
			return nil
		},
	}
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Usage: "confirm a command that destroys"}
}

func confirmed(c *cli.Context, what string) error {
	if !c.Bool("yes") {
		return console.Usagef("'%s' %s; repeat it with --yes", c.Command.HelpName, what)
	}
	return nil
}
