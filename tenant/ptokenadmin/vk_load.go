package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) vkLoad() *cli.Command {
	return t.forKey("load", "load one vending key of a KLF into the module", "load the vending key", nil,
		func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, sgc, krn int32) error {
			v, err := p.VkLoad(ctx, sgc, krn)
			if err != nil {
				return err
			}
			return t.printVK(c, v)
		})
}
