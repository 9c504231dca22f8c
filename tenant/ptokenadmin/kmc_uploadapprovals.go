package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) kmcUploadApprovals() *cli.Command {
	return command("upload-approvals", "hand over the approval root's newest list of KMC public keys", []string{"FILE"}, nil, func(c *cli.Context, args []string) error {
		text, err := t.env.ReadFile(args[0], maxText)
		if err != nil {
			return err
		}
		return t.session(c, "upload the approval list", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			a, err := p.KmcUploadApprovals(ctx, string(text))
			if err != nil {
				return err
			}
			return t.printApprovals(c, a)
		})
	})
}
