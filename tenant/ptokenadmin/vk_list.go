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

func (t tool) vkList() *cli.Command {
	flags := []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "also keys of a KLF that are not in the module"}}
	return command("list", "list the vending keys", nil, flags, func(c *cli.Context, _ []string) error {
		return t.session(c, "list the vending keys", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			keys, err := p.VkList(ctx, c.Bool("all"))
			if err != nil {
				return err
			}
			out := make([]vkJSON, len(keys))
			rows := make([][]string, len(keys))
			for i, v := range keys {
				out[i] = vkOut(v)
				vend := "yes"
				if v.VendReason != "" {
					vend = "no: " + v.VendReason
				}
				rows[i] = []string{fmt.Sprintf("%06d", v.Sgc), strconv.Itoa(int(v.Krn)), v.Kmc, register(v), v.Attributes["KEN"], v.Attributes["KCV"], vend}
			}
			return t.env.Print(c, out, func(w io.Writer) error {
				console.Table(w, []string{"SGC", "KRN", "KMC", "REGISTER", "KEN", "KCV", "CAN VEND"}, rows)
				return nil
			})
		})
	})
}
