package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) vkShow() *cli.Command {
	return t.forKey("show", "show a vending key and its attributes", "show the vending key", nil,
		func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, sgc, krn int32) error {
			v, err := p.VkShow(ctx, sgc, krn)
			if err != nil {
				return err
			}
			return t.printVK(c, v)
		})
}
