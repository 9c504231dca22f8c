package vcmadmin

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
)

func (t tool) propertiesList() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the properties that can be set",
		Flags: common(esnFlag("ask the HSM with this ESN")),
		Action: t.with(func(k *call, _ []string) error {
			units, err := platform.Units(k.home, k.c.String("esn"))
			if err != nil {
				return err
			}
			return console.Failed("list properties", k.on(units[0], func(ctx context.Context, h *platform.Hosting) error {
				properties, err := h.ListProperties(ctx)
				if err != nil {
					return err
				}
				rows := make([][]string, len(properties))
				for i, p := range properties {
					rows[i] = []string{p.Name, p.Values, p.Description}
				}
				return t.env.Print(k.c, properties, func(w io.Writer) error {
					console.Table(w, []string{"PROPERTY", "VALUES", "MEANING"}, rows)
					return nil
				})
			}))
		}),
	}
}
