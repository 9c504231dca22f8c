package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) kmcGenerateRequest() *cli.Command {
	return t.forKMC("generate-request", "make a VKLOADREQ to send to the KMC; an earlier one becomes void", "generate the VKLOADREQ",
		[]cli.Flag{outFlag("write the VKLOADREQ to this file"), console.ForceFlag()},
		func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, kmc string) error {
			if path := c.String("out"); path != "" { // before the earlier request is void
				if err := console.CheckNew(path, c.Bool("force")); err != nil {
					return err
				}
			}
			text, err := p.KmcGenerateRequest(ctx, kmc)
			if err != nil {
				return err
			}
			return t.text(c, "vkloadreq", text)
		})
}

func (t tool) kmcFetchRequest() *cli.Command {
	return t.forKMC("fetch-request", "print the newest VKLOADREQ again", "fetch the VKLOADREQ",
		[]cli.Flag{outFlag("write the VKLOADREQ to this file"), console.ForceFlag()},
		func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, kmc string) error {
			text, err := p.KmcFetchRequest(ctx, kmc)
			if err != nil {
				return err
			}
			return t.text(c, "vkloadreq", text)
		})
}
