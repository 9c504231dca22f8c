package main

import (
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func refreshCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "refresh",
		Usage: "change what the next key load files say about a key: its limits, dates, expiry number, bitmap, name",
		Flags: append(append(keyFlags(), dirFlag(), console.JSONFlag()), ownerFlags()...),
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			sgc, err := sgcFlag(c)
			if err != nil {
				return err
			}
			old, err := k.Find(sgc, c.Int("krn"), c.Int("bdt"))
			if err != nil {
				return err
			}
			next := old
			if err := readOwner(c, &next); err != nil {
				return err
			}
			g, err := k.Change(sgc, old.KRN, old.BDT, func(g *kmc.Group) { *g = next })
			if err != nil {
				return err
			}
			return printGroups(env, c, []kmc.Group{g})
		},
	}
}
