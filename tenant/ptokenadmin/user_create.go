package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) userCreate() *cli.Command {
	flags := []cli.Flag{
		rolesFlag("a role of the user; give the option once for each"),
		passwordFlag(),
		&cli.BoolFlag{Name: "no-password", Usage: "make the user without a password; he cannot sign in yet"},
		&cli.StringFlag{Name: "expires", Usage: "when the account ends: a date, a time"},
	}
	return command("create", "make a user", []string{"USERNAME"}, flags, func(c *cli.Context, args []string) error {
		expires := int64(0)
		var err error
		if c.IsSet("expires") {
			if expires, err = parseTime("expires", c.String("expires")); err != nil {
				return err
			}
		}
		password := ""
		switch {
		case c.Bool("no-password") && c.IsSet("password-file"):
			return console.Usagef("--no-password and --password-file exclude each other")
		case !c.Bool("no-password"):
			if password, err = t.env.Secret("Password of "+args[0]+": ", c.String("password-file"), true); err != nil {
				return err
			}
		}
		return t.session(c, "create the user", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			u, err := p.UserCreate(ctx, args[0], c.StringSlice("role"), password, expires)
			if err != nil {
				return err
			}
			return t.printUser(c, u)
		})
	})
}
