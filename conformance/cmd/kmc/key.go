package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func keyCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:        "key",
		Usage:       "the KMC's own key pair, and vending keys for virtual meters",
		Subcommands: []*cli.Command{keyRollCommand(env), keyExportCommand(env)},
	}
}

func keyRollCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "roll",
		Usage: "make a new key pair; requests for older keys are answered while those are valid",
		Flags: append([]cli.Flag{dirFlag(), console.JSONFlag()}, validityFlags()...),
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			activates, expires, err := validity(env, c)
			if err != nil {
				return err
			}
			if err := k.Roll(activates, expires); err != nil {
				return err
			}
			return printKey(env, c, k)
		},
	}
}

func keyExportCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "write a test vending key to a file, so that a virtual meter can be made with it",
		Flags: append(keyFlags(), dirFlag(),
			&cli.StringFlag{Name: "out", Required: true, Usage: "new `FILE` for the key, one line of hex"}),
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			sgc, err := sgcFlag(c)
			if err != nil {
				return err
			}
			g, err := k.Find(sgc, c.Int("krn"), c.Int("bdt"))
			if err != nil {
				return err
			}
			path := c.String("out")
			if _, err := os.Lstat(path); err == nil {
				return errkind.Errorf(errkind.Refused, "%s exists; a key file is not overwritten", path)
			}
			if err := atomicfile.Write(path, []byte(g.Key+"\n"), 0o600); err != nil {
				return fmt.Errorf("write the vending key: %w", err)
			}
			_, err = fmt.Fprintf(env.Stdout, "test vending key SGC %06d KRN %d (%s, DKGA%02d, base date %d) written to %s\n", g.SGC, g.KRN, g.KTC, g.DKG, g.BDT, path)
			return err
		},
	}
}
