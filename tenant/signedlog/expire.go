package signedlog

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) expire() *cli.Command {
	return &cli.Command{
		Name: "expire", Usage: "remove exported entries from the log",
		Flags: t.online(
			&cli.Int64Flag{Name: "seq", Usage: "the last entry to remove; it must have been exported", Required: true},
		),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			if c.Int64("seq") < 0 {
				return console.Usagef("--seq %d is negative", c.Int64("seq"))
			}
			var removed int64
			err := t.access.Monitor(c, func(ctx context.Context, m *monitor.MonitorClient) (err error) {
				removed, err = m.LogExpire(ctx, c.Int64("seq"))
				return err
			})
			if err != nil {
				return console.Failed("expire the log", err)
			}
			return t.env.Print(c, map[string]int64{"removed": removed}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%d entries up to %d were removed.\n", removed, c.Int64("seq"))
				return err
			})
		},
	}
}
