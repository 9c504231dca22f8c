package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) conductorRestart() *cli.Command {
	return command("restart", "close every connection of the Conductor; the security module and the token service go on", nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "restart the Conductor", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			d, err := p.ConductorRestart(ctx)
			if err != nil {
				return err
			}
			return t.printConductor(c, d)
		})
	})
}
