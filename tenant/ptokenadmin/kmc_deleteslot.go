package ptokenadmin

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) kmcDeleteSlot() *cli.Command {
	return t.forKMC("delete-slot", "delete a KMC's KEK slot and all vending keys under it", "delete the KEK slot",
		[]cli.Flag{console.YesFlag()},
		func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, kmc string) error {
			if err := t.env.Confirm(c, fmt.Sprintf("All vending keys of KMC %s are erased. Go on?", kmc)); err != nil {
				return err
			}
			erased, err := p.KmcDeleteSlot(ctx, kmc)
			if err != nil {
				return err
			}
			return t.env.Print(c, map[string]any{"kmc": kmc, "erased": erased}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "The KEK slot of %s is deleted, with %d vending keys.\n", kmc, erased)
				return err
			})
		})
}
