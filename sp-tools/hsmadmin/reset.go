package hsmadmin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) reset() *cli.Command {
	return &cli.Command{
		Name: "reset", Usage: "restart the platform of an HSM; its VCMs stop, those with autostart come back",
		Flags: common(esnFlag(), console.YesFlag()),
		Action: t.with(func(k *call, _ []string) error {
			u, err := k.one()
			if err != nil {
				return err
			}
			if err := t.env.Confirm(k.c, fmt.Sprintf("All VCMs of HSM %s are interrupted. Go on?", u.ESN)); err != nil {
				return err
			}
			err = k.restart(u, func(ctx context.Context, s *setup.SetupClient) error { return s.Reset(ctx) })
			if err != nil {
				return console.Failed("reset", err)
			}
			_, err = fmt.Fprintf(t.env.Stdout, "HSM %s is reset; its services answer again.\n", u.ESN)
			return err
		}),
	}
}
