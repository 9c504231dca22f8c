package ptokenadmin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) userSetPassword() *cli.Command {
	return command("set-password", "set a user's password", []string{"USERNAME"}, []cli.Flag{passwordFlag()}, func(c *cli.Context, args []string) error {
		password, err := t.env.Secret("New password of "+args[0]+": ", c.String("password-file"), true)
		if err != nil {
			return err
		}
		return t.session(c, "set the password", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			if err := p.UserSetPassword(ctx, args[0], password); err != nil {
				return err
			}
			_, err := fmt.Fprintf(t.env.Stdout, "The password of %s is set.\n", args[0])
			return err
		})
	})
}
