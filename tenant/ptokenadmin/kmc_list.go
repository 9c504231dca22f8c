package ptokenadmin

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) kmcList() *cli.Command {
	return command("list", "list the known KMCs and their KEK slots", nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "list the KMCs", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			slots, err := p.KmcList(ctx)
			if err != nil {
				return err
			}
			out := make([]slotJSON, len(slots))
			rows := make([][]string, len(slots))
			for i, s := range slots {
				out[i] = slotOut(s)
				rows[i] = []string{s.Kmc, strconv.Itoa(int(s.Kpn)), s.State, strconv.FormatBool(s.Approved), stamp(s.KeyExpires),
					fmt.Sprintf("%d of %d", s.RegistersLoaded, s.KeysInKlf), strconv.FormatBool(s.RequestOutstanding)}
			}
			return t.env.Print(c, out, func(w io.Writer) error {
				console.Table(w, []string{"KMC", "KPN", "STATE", "APPROVED", "KEY EXPIRES", "KEYS LOADED", "REQUEST OUTSTANDING"}, rows)
				return nil
			})
		})
	})
}
