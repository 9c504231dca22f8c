package ptokenadmin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) userDelete() *cli.Command {
	return command("delete", "delete a user", []string{"USERNAME"}, []cli.Flag{console.YesFlag()}, func(c *cli.Context, args []string) error {
		if err := t.env.Confirm(c, fmt.Sprintf("User %s is deleted for ever. Go on?", args[0])); err != nil {
			return err
		}
		return t.session(c, "delete the user", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			if err := p.UserDelete(ctx, args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(t.env.Stdout, "User %s is deleted.\n", args[0])
			return err
		})
	})
}
