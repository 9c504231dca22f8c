package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

func moduleFlag() cli.Flag {
	return &cli.StringFlag{Name: "module", Required: true, Usage: "`ID` of the module, 8 digits"}
}

func authoriseCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "authorise",
		Usage: "record a key use authorisation: a module may have a key, or all keys there are now",
		Flags: append(keyFlags(), dirFlag(), moduleFlag(), &cli.BoolFlag{Name: "all", Usage: "all keys"}),
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			if c.Bool("all") == c.IsSet("sgc") {
				return console.Usagef("give --all, or --sgc and --krn of one key")
			}
			n := 1
			if c.Bool("all") {
				n, err = k.AuthoriseAll(c.String("module"))
			} else {
				var sgc int
				if sgc, err = sgcFlag(c); err != nil {
					return err
				}
				err = k.Authorise(c.String("module"), sgc, c.Int("krn"), c.Int("bdt"))
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.Stdout, "authorised for module %s: %d\n", c.String("module"), n)
			return err
		},
	}
}

func revokeCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "revoke",
		Usage: "withdraw a key use authorisation, from the next key load file on",
		Flags: append(keyFlags(), dirFlag(), moduleFlag()),
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			sgc, err := sgcFlag(c)
			if err != nil {
				return err
			}
			if err := k.Revoke(c.String("module"), sgc, c.Int("krn"), c.Int("bdt")); err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.Stdout, "withdrawn from module %s: SGC %06d KRN %d\n", c.String("module"), sgc, c.Int("krn"))
			return err
		},
	}
}
