package ptokenadmin

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

func (t tool) tokenVerify() *cli.Command {
	return command("verify", "say what a token is, under the key of a meter's configuration", []string{"TOKEN"}, meterFlags(), func(c *cli.Context, args []string) error {
		m, err := meterOf(c)
		if err != nil {
			return err
		}
		digits := strings.NewReplacer(" ", "", "-", "").Replace(args[0])
		return t.session(c, "verify the token", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			v, err := p.TokenVerify(ctx, m, digits)
			if err != nil {
				return err
			}
			return t.env.Print(c, v, func(w io.Writer) error {
				if _, err := fmt.Fprintf(w, "RESULT : %s %s\n", v.Result_, v.Text); err != nil {
					return err
				}
				if v.Token != nil {
					printToken(w, v.Token)
				}
				if v.MeterTest != nil {
					printMeterTest(w, v.MeterTest)
				}
				return nil
			})
		})
	})
}
