package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) kmcUploadKLF() *cli.Command {
	return command("upload-klf", "hand over a KMC's key load file; the vending keys of that KMC are erased from the module until they are loaded", []string{"FILE"},
		nil, func(c *cli.Context, args []string) error {
			text, err := t.env.ReadFile(args[0], maxText)
			if err != nil {
				return err
			}
			return t.session(c, "upload the KLF", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
				slot, err := p.KmcUploadKlf(ctx, string(text))
				if err != nil {
					return err
				}
				return t.printSlot(c, slot)
			})
		})
}
