package hsmadmin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) setTime() *cli.Command {
	return &cli.Command{
		Name: "settime", Usage: "set the clock of the enrolled HSMs to this host's",
		Flags: common(esnFlag(), &cli.BoolFlag{Name: "adjust", Usage: "let the clock approach the time, without a jump"}, console.YesFlag()),
		Action: t.with(func(k *call, _ []string) error {
			units, err := k.units()
			if err != nil {
				return err
			}
			adjust := k.c.Bool("adjust")
			if !adjust {
				if err := t.env.Confirm(k.c, "The module's clock jumps, and can never be set back. Go on?"); err != nil {
					return err
				}
			}
			for _, u := range units {
				err := k.onSetup(u, func(ctx context.Context, s *setup.SetupClient) error {
					clocks, err := s.SetTime(ctx, t.env.Clock.Now().Unix(), adjust)
					if err != nil {
						return err
					}
					if adjust {
						_, err = fmt.Fprintf(t.env.Stdout, "HSM %s: HSM system time calibration in progress\n", u.ESN)
						return err
					}
					_, err = fmt.Fprintf(t.env.Stdout, "HSM %s is set to %s.\n", u.ESN, stamp(clocks.ModuleTime))
					return err
				})
				if err != nil {
					return console.Failed("set the time", err)
				}
			}
			return nil
		}),
	}
}
