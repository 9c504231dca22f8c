package ptokenadmin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) vkDelete() *cli.Command {
	return t.forKey("delete", "erase one vending key from the module", "delete the vending key", []cli.Flag{console.YesFlag()},
		func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, sgc, krn int32) error {
			if err := t.env.Confirm(c, fmt.Sprintf("Vending key %06d/%d is erased from the module. Go on?", sgc, krn)); err != nil {
				return err
			}
			if err := p.VkDelete(ctx, sgc, krn); err != nil {
				return err
			}
			_, err := fmt.Fprintf(t.env.Stdout, "Vending key %06d/%d is erased.\n", sgc, krn)
			return err
		})
}
