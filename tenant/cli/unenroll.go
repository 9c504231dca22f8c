package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/access"
)

func (t tool) unenroll() *cli.Command {
	return &cli.Command{
		Name: "unenroll", Usage: "remove an enrolled VCM from this host; the VCM itself and the keys stay", ArgsUsage: "UUID",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-service-restart", Usage: "accepted for compatibility: no service on this host needs a restart"},
			console.VerboseFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "UUID")
			if err != nil {
				return err
			}
			id, err := console.UUID(args[0])
			if err != nil {
				return err
			}
			home, err := access.Home(t.env)
			if err != nil {
				return err
			}
			if err := home.RemoveVCM(id); err != nil {
				return console.Failed("unenroll VCM", err)
			}
			_, err = fmt.Fprintf(t.env.Stdout, "VCM %s is no longer enrolled on this host.\n", id)
			return err
		},
	}
}
