package main

import (
	"crypto/rand"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/licensing"
)

func licenceCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "licence",
		Usage: "make a licence for one unit",
		Flags: []cli.Flag{
			dirFlag(), outFlag(),
			&cli.StringFlag{Name: "esn", Usage: "the unit's electronic serial number", Required: true},
			&cli.StringFlag{Name: "type", Usage: "max-active-vcms, feature or speed", Required: true},
			&cli.StringFlag{Name: "value", Usage: "a number of VCMs, features, or HSMSpeed0 to HSMSpeed2", Required: true},
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			l := licensing.Licence{Type: licensing.Type(c.String("type")), ESN: c.String("esn"), Serial: rand.Text(), Issued: env.Clock.Now()}
			if err := l.ParseValue(c.String("value")); err != nil {
				return err
			}
			root, err := readRoot(c.String("dir"))
			if err != nil {
				return err
			}
			file, err := l.Sign(root)
			if err != nil {
				return err
			}
			if err := atomicfile.Write(c.String("out"), file, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "Licence %s for unit %s written to %s: %s\n", l.Type, l.ESN, c.String("out"), l.Value())
			return nil
		},
	}
}
