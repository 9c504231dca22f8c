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
			&cli.StringFlag{Name: "hardware", Value: device.HardwareID,
				Usage: device.HardwareID + ", or " + device.SmallHardwareID + " whose modules have 25 vending-key registers"},
			&cli.StringFlag{Name: "esn", Usage: "electronic serial number XXXX-XXXX-XXXX (default: random)"},
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			cfg := config(env, c, env.Logger(c))
			switch cfg.HardwareID = c.String("hardware"); cfg.HardwareID {
			case device.HardwareID, device.SmallHardwareID:
			default:
				return console.Usagef("--hardware %q is neither %s nor %s", cfg.HardwareID, device.HardwareID, device.SmallHardwareID)
			}
			request, err := device.Initialise(cfg, c.String("esn"))
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stderr, "Written to %s; the maker answers it with a warrant.\n", filepath.Join(c.String("state"), "identity-request"))
			_, err = env.Stdout.Write(request)
			return err
		},
	}
}
