package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func initCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make a unit and print its identity request for the maker",
		Flags: []cli.Flag{
			stateFlag(), guardFlag(),
			&cli.StringFlag{Name: "esn", Usage: "electronic serial number XXXX-XXXX-XXXX (default: random)"},
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			request, err := device.Initialise(config(env, c, env.Logger(c)), c.String("esn"))
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "Written to %s; the maker answers it with a warrant.\n", filepath.Join(c.String("state"), "identity-request"))
			_, err = env.Stdout.Write(request)
			return err
		},
	}
}
