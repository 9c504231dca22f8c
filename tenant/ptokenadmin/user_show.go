package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) userShow() *cli.Command {
	return command("show", "show a user", []string{"USERNAME"}, nil, func(c *cli.Context, args []string) error {
		return t.session(c, "show the user", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			u, err := p.UserShow(ctx, args[0])
			if err != nil {
				return err
			}
			return t.printUser(c, u)
		})
	})
}
