package signedlog

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) getKey() *cli.Command {
	return &cli.Command{
		Name: "getkey", Usage: "retrieve the key that verifies the log",
		Flags: t.online(
			&cli.StringFlag{Name: "out", Usage: "write the key to this file"},
			console.ForceFlag(),
		),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			source, err := t.access.Source(c)
			if err != nil {
				return err
			}
			var line string
			err = t.access.Monitor(c, func(ctx context.Context, m *monitor.MonitorClient) (err error) {
				if line, err = m.LogKey(ctx); err != nil {
					return err
				}
				_, err = source.key(line)
				return err
			})
			if err != nil {
				return console.Failed("get the log key", err)
			}
			path := c.String("out")
			if path != "" {
				if err := t.env.WriteFile(path, []byte(line+"\n"), 0o644, c.Bool("force")); err != nil {
					return err
				}
			}
			return t.env.Print(c, map[string]string{"log": source.Name, "key": line}, func(w io.Writer) error {
				if path != "" {
					line = "Written to " + path
				}
				_, err := fmt.Fprintln(w, line)
				return err
			})
		},
	}
}
