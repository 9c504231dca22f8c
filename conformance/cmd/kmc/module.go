package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

func moduleCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:        "module",
		Usage:       "the security modules that the KMC knows",
		Subcommands: []*cli.Command{moduleAddCommand(env), moduleListCommand(env)},
	}
}

func moduleAddCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "add",
		Usage: "make a module known by its public key",
		Flags: []cli.Flag{dirFlag(), console.JSONFlag(),
			&cli.StringFlag{Name: "file", Required: true, Usage: "`FILE` with the module's SM.PUBKEY.1 record"}},
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			text, err := readInput(c.String("file"))
			if err != nil {
				return err
			}
			m, err := k.AddModule(text)
			if err != nil {
				return err
			}
			return env.Print(c, m, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "module %s (%s, %s) is known\n", m.ID, m.HardwareID, m.FirmwareID)
				return err
			})
		},
	}
}

// moduleView is a module in a list.
type moduleView struct {
	ID         string `json:"id"`
	HardwareID string `json:"hardwareId"`
	FirmwareID string `json:"firmwareId"`
	Authorised int    `json:"authorisedKeys"`
}

func moduleListCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the known modules",
		Flags: []cli.Flag{dirFlag(), console.JSONFlag()},
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			views := []moduleView{}
			var rows [][]string
			for _, m := range k.Modules() {
				n := len(k.Authorised(m.ID))
				views = append(views, moduleView{m.ID, m.HardwareID, m.FirmwareID, n})
				rows = append(rows, []string{m.ID, m.HardwareID, m.FirmwareID, fmt.Sprint(n)})
			}
			return env.Print(c, views, func(w io.Writer) error {
				console.Table(w, []string{"Module", "Hardware", "Firmware", "Authorised keys"}, rows)
				return nil
			})
		},
	}
}
