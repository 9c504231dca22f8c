package ptokenadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) kmcEndSession() *cli.Command {
	return t.forKMC("end-session", "end the key agreement session; keys of its KLF that are not loaded never can be", "end the session",
		[]cli.Flag{console.YesFlag()},
		func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, kmc string) error {
			slots, err := p.KmcList(ctx)
			if err != nil {
				return err
			}
			for _, s := range slots {
				if s.Kmc == kmc && s.RegistersLoaded < s.KeysInKlf {
					if err := t.env.Confirm(c, "Keys of the KLF are not loaded, and cannot be afterwards. Go on?"); err != nil {
						return err
					}
				}
			}
			slot, err := p.KmcEndSession(ctx, kmc)
			if err != nil {
				return err
			}
			return t.printSlot(c, slot)
		})
}
