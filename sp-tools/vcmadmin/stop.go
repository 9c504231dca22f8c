package vcmadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
)

func (t tool) stop() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "stop VCMs", ArgsUsage: uuids,
		Flags: common(
			&cli.BoolFlag{Name: "force", Usage: "stop the VCM although its tenant's service is operational"},
			esnFlag("ESN of the HSM on which to stop the VCM"),
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
			force := c.Bool("force")
			if force && c.NArg() > 0 {
				if err := t.env.Confirm(c, "Forcing a VCM to stop interrupts its tenant. Go on?"); err != nil {
					return err
				}
			}
			return k.act("stop", "is stopped", func(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) (*orchestrator.Vcm, error) {
				return h.Stop(ctx, v.Uuid, force, k.seconds())
			})
		},
	}
}
