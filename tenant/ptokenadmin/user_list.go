package ptokenadmin

import (
	"context"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) userList() *cli.Command {
	return command("list", "list the users", nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "list the users", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			users, err := p.UserList(ctx)
			if err != nil {
				return err
			}
			out := make([]userJSON, len(users))
			rows := make([][]string, len(users))
			for i, u := range users {
				out[i] = userOut(u)
				rows[i] = []string{u.Username, strings.Join(u.Roles, ","), userState(u), stamp(u.AccountExpires), stamp(u.LastSignIn)}
			}
			return t.env.Print(c, out, func(w io.Writer) error {
				console.Table(w, []string{"USERNAME", "ROLES", "STATE", "ACCOUNT EXPIRES", "LAST SIGN-IN"}, rows)
				return nil
			})
		})
	})
}

func (t tool) userRoles() *cli.Command {
	return command("roles", "list the roles that a user can have", nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "list the roles", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			roles, err := p.RoleList(ctx)
			if err != nil {
				return err
			}
			rows := make([][]string, len(roles))
			for i, r := range roles {
				rows[i] = []string{r.Name, r.Description}
			}
			return t.env.Print(c, roles, func(w io.Writer) error {
				console.Table(w, []string{"ROLE", "MEANING"}, rows)
				return nil
			})
		})
	})
}
