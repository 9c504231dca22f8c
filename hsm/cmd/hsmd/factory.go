package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func factoryCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "factory",
		Usage: "return a unit that does not run to factory state: partitions are destroyed; ESN, warrant and factory features stay",
		Flags: []cli.Flag{stateFlag(), guardFlag(), yesFlag()},
		Action: func(c *cli.Context) (err error) {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			if err := confirmed(c, "destroys every partition"); err != nil {
				return err
			}
			u, err := device.Open(c.Context, config(env, c, env.Logger(c)))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, u.Close()) }()
			n := u.Count()
			if err := u.Factory(); err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "Factory state: %d partitions destroyed.\n", n)
			return nil
		},
	}
}
