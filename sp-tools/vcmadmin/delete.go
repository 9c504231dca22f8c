package vcmadmin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
)

func (t tool) remove() *cli.Command {
	return &cli.Command{
		Name: "delete", Usage: "delete VCMs that are stopped, with all their secrets", ArgsUsage: uuids,
		Flags: common(
			&cli.BoolFlag{Name: "force", Usage: "delete the VCM although its audit log was not finalised"},
			esnFlag("delete only from the HSM with this ESN"),
			console.YesFlag(),
		),
		Action: func(c *cli.Context) error {
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			if err := noOptionsAfter(c); err != nil {
				return err
			}
			if n := c.NArg(); n > 0 {
				if err := t.env.Confirm(c, fmt.Sprintf("Deleting destroys all keys and data of %d VCM(s) for ever. Go on?", n)); err != nil {
					return err
				}
			}
			return k.act("delete", "is deleted", func(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) (*orchestrator.Vcm, error) {
				return nil, h.Remove(ctx, v.Uuid, c.Bool("force"))
			})
		},
	}
}
