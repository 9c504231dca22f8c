package ptokenadmin

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) smLoadTables() *cli.Command {
	flags := []cli.Flag{&cli.StringFlag{Name: "name", Required: true, Usage: "`NAME` under which the set is reported"}}
	return command("load-tables", "load STA tables (JSON: sub0, sub1, perm), which only members of the STS Association hold", []string{"FILE"}, flags,
		func(c *cli.Context, args []string) error {
			tables, err := t.env.ReadFile(args[0], maxText)
			if err != nil {
				return err
			}
			return t.session(c, "load the STA tables", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
				sum, err := p.SmLoadTables(ctx, c.String("name"), string(tables))
				if err != nil {
					return err
				}
				return t.env.Print(c, map[string]string{"name": c.String("name"), "sha256": sum}, func(w io.Writer) error {
					console.Fields(w, [2]string{"STA TABLES", c.String("name")}, [2]string{"SHA-256", sum})
					return nil
				})
			})
		})
}
