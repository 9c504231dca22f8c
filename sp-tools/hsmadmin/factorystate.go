package hsmadmin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) factoryState() *cli.Command {
	return &cli.Command{
		Name: "factorystate", Usage: "destroy every VCM, key, licence and setting of the HSMs",
		Flags: common(esnFlag(), console.YesFlag(), &cli.BoolFlag{Name: "all", Usage: "do not ask for confirmation"}),
		Action: t.with(func(k *call, _ []string) error {
			units, err := k.units()
			if err != nil {
				return err
			}
			if !k.c.Bool("all") {
				if err := t.env.Confirm(k.c, fmt.Sprintf("Everything on %d HSM(s) is destroyed for ever. Go on?", len(units))); err != nil {
					return err
				}
			}
			for _, u := range units {
				err := k.restart(u, func(ctx context.Context, s *setup.SetupClient) error { return s.FactoryState(ctx) })
				if err != nil {
					return console.Failed("return to factory state", err)
				}
				if _, err := fmt.Fprintf(t.env.Stdout, "HSM %s is in factory state; its services answer again. Enroll it with its new unit file.\n", u.ESN); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}
