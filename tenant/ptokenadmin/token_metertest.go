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

func (t tool) tokenTest() *cli.Command {
	flags := []cli.Flag{
		&cli.IntFlag{Name: "subclass", Usage: "subclass of the token"},
		&cli.Int64Flag{Name: "control", Usage: "bit mask of tests"},
		&cli.IntFlag{Name: "mfrcode", Usage: "manufacturer code"},
	}
	return command("test", "make a meter test token", nil, flags, func(c *cli.Context, _ []string) error {
		subclass, err := small(c, "subclass")
		if err != nil {
			return err
		}
		manufacturer, err := small(c, "mfrcode")
		if err != nil {
			return err
		}
		return t.session(c, "make the test token", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			k, err := p.TokenMeterTest(ctx, subclass, c.Int64("control"), manufacturer)
			if err != nil {
				return err
			}
			return t.env.Print(c, k, func(w io.Writer) error {
				printMeterTest(w, k)
				return nil
			})
		})
	})
}

func printMeterTest(w io.Writer, k *prismadmin.MeterTest) {
	console.Fields(w, [2]string{"TOKEN", grouped(k.TokenDec)}, [2]string{"DESCRIPTION", k.Description},
		[2]string{"CLASS", fmt.Sprintf("1/%d", k.Subclass)}, [2]string{"CONTROL", strconv.FormatInt(k.Control, 10)},
		[2]string{"MANUFACTURER", strconv.Itoa(int(k.Mfrcode))})
}
