package ptokenadmin

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) licenseLoad() *cli.Command {
	return command("load", "load a transaction licence; it may be inside an e-mail", []string{"FILE"}, nil, func(c *cli.Context, args []string) error {
		text, err := t.env.ReadFile(args[0], maxText)
		if err != nil {
			return err
		}
		return t.session(c, "load the licence", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			result, err := p.LicenseLoad(ctx, string(text))
			if err != nil {
				return err
			}
			return t.env.Print(c, map[string]string{"result": result}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, result)
				return err
			})
		})
	})
}
