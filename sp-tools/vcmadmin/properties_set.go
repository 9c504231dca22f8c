package vcmadmin

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

func (t tool) propertiesSet() *cli.Command {
	return &cli.Command{
		Name: "set", Usage: "set a property to the value that the tenant requested", ArgsUsage: "UUID PROPERTY VALUE",
		Flags: common(
			&cli.StringFlag{Name: "request", Usage: "file with the signed tenant request", Required: true},
			esnFlag("ESN of the HSM that hosts the VCM"),
		),
		Action: t.with(func(k *call, args []string) error {
			property := args[1]
			value, err := request.CanonicalValue(property, args[2])
			if err != nil {
				return console.Failed("set VCM properties", err)
			}
			file, err := t.readRequest(k.c.String("request"))
			if err != nil {
				return err
			}
			return console.Failed("set VCM properties", k.owner(args[0], func(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) error {
				after, err := h.SetProperty(ctx, file, v.Uuid, property, value)
				if err != nil {
					return err
				}
				return t.env.Print(k.c, toJSON(after), func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "VCM %s: %s is now %s.\n", v.Uuid, property, value)
					return err
				})
			}))
		}, "UUID", "PROPERTY", "VALUE"),
	}
}
