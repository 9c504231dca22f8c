package vcmadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
)

func (t tool) start() *cli.Command {
	return &cli.Command{
		Name: "start", Usage: "start VCMs", ArgsUsage: uuids,
		Flags: common(
			&cli.StringFlag{Name: "request", Usage: "file with the tenant's start request, for a VCM with restrict-startup"},
			esnFlag("ESN of the HSM on which to start the VCM"),
		),
		Action: func(c *cli.Context) error {
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			if err := noOptionsAfter(c); err != nil {
				return err
			}
			if c.IsSet("request") && c.NArg() > 1 {
				return console.Usagef("a start request is for one VCM; %d were given", c.NArg())
			}
			file, err := t.readRequest(c.String("request"))
			if err != nil {
				return err
			}
			return k.act("start", "is running", func(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) (*orchestrator.Vcm, error) {
				return h.Start(ctx, v.Uuid, file, k.seconds())
			})
		},
	}
}
