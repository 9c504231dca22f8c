package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) userChange() *cli.Command {
	flags := []cli.Flag{
		rolesFlag("a role of the user, in place of all present ones; give the option once for each"),
		&cli.BoolFlag{Name: "disable", Usage: "the user can no longer sign in"},
		&cli.BoolFlag{Name: "enable", Usage: "the user can sign in again"},
		&cli.StringFlag{Name: "expires", Usage: "when the account ends: a date, a time, or never"},
	}
	return command("change", "change a user", []string{"USERNAME"}, flags, func(c *cli.Context, args []string) error {
		change := &prismadmin.UserChange{}
		if c.IsSet("role") {
			change.Roles = c.StringSlice("role")
		}
		if c.Bool("disable") && c.Bool("enable") {
			return console.Usagef("--disable and --enable exclude each other")
		}
		if c.Bool("disable") || c.Bool("enable") {
			off := c.Bool("disable")
			change.Disabled = &off
		}
		if c.IsSet("expires") {
			at, err := parseTime("expires", c.String("expires"))
			if err != nil {
				return err
			}
			change.AccountExpires = &at
		}
		if change.Roles == nil && change.Disabled == nil && change.AccountExpires == nil {
			return console.Usagef("nothing to change is given; see '%s --help'", c.Command.HelpName)
		}
		return t.changeUser(c, "change the user", args[0], change)
	})
}

func (t tool) userUnlock() *cli.Command {
	return command("unlock", "let a user sign in again who was locked out", []string{"USERNAME"}, nil, func(c *cli.Context, args []string) error {
		yes := true
		return t.changeUser(c, "unlock the user", args[0], &prismadmin.UserChange{Unlock: &yes})
	})
}

func (t tool) changeUser(c *cli.Context, what, name string, change *prismadmin.UserChange) error {
	return t.session(c, what, func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
		u, err := p.UserChange(ctx, name, change)
		if err != nil {
			return err
		}
		return t.printUser(c, u)
	})
}
