package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) kmcUploadKey() *cli.Command {
	return command("upload-key", "store a KMC's public key file", []string{"FILE"}, nil, func(c *cli.Context, args []string) error {
		text, err := t.env.ReadFile(args[0], maxText)
		if err != nil {
			return err
		}
		return t.session(c, "upload the KMC public key", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			slot, err := p.KmcUploadKey(ctx, string(text))
			if err != nil {
				return err
			}
			return t.printSlot(c, slot)
		})
	})
}
