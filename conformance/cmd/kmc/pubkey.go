package main

import (
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

func pubkeyCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "pubkey",
		Usage: "print the KMC's public key, to be loaded into modules",
		Flags: []cli.Flag{
			dirFlag(), outFlag("the public key"),
			&cli.StringFlag{Name: "root-key", Usage: "`FILE` with the private key of an approval root that signs the public key"},
		},
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			key, err := k.PublicKey()
			if err != nil {
				return err
			}
			if file := c.String("root-key"); file != "" {
				root, err := readRoot(file)
				if err != nil {
					return err
				}
				if err := key.Sign(root); err != nil {
					return err
				}
			}
			return output(env, c, key.Text())
		},
	}
}
