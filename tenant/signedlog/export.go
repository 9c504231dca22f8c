package signedlog

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

// piece is one file of an export.
type piece struct {
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Entries int    `json:"entries"`
	File    string `json:"file,omitempty"`
}

func (t tool) export() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "retrieve and validate the signed log",
		Flags: t.online(
			&cli.BoolFlag{Name: "saved", Usage: "export again what was exported before and is not expired"},
			&cli.BoolFlag{Name: "expire", Usage: "expire the log after exporting it; needs --outdir"},
			&cli.StringFlag{Name: "outdir", Usage: "write the log files into this folder, which must exist"},
			console.ForceFlag(),
		),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			if c.Bool("expire") && c.String("outdir") == "" {
				return console.Usagef("--expire needs --outdir: what is expired is nowhere else")
			}
			source, err := t.access.Source(c)
			if err != nil {
				return err
			}
			var pieces []piece
			err = t.access.Monitor(c, func(ctx context.Context, m *monitor.MonitorClient) (err error) {
				pieces, err = t.fetch(ctx, c, source, m)
				return err
			})
			if err != nil {
				return console.Failed("export the log", err)
			}
			return t.env.Print(c, pieces, func(w io.Writer) error { return printPieces(w, pieces) })
		},
	}
}

func printPieces(w io.Writer, pieces []piece) error {
	for _, p := range pieces {
		where := ""
		if p.File != "" {
			where = ", in " + p.File
		}
		if _, err := fmt.Fprintf(w, "entries %d to %d: signature and chain good%s\n", p.First, p.Last, where); err != nil {
			return err
		}
	}
	if len(pieces) == 0 {
		_, err := fmt.Fprintln(w, "There is nothing to export.")
		return err
	}
	return nil
}

// fetch gets piece after piece. Each is verified and written before the next one
// is asked for, and expired only after that.
func (t tool) fetch(ctx context.Context, c *cli.Context, s Source, m *monitor.MonitorClient) ([]piece, error) {
	line, err := m.LogKey(ctx)
	if err != nil {
		return nil, err
	}
	key, err := s.key(line)
	if err != nil {
		return nil, err
	}
	pieces := []piece{}
	var last *auditlog.Verified
	for from := int64(0); ; {
		answer, err := m.LogExport(ctx, from, c.Bool("saved"))
		if err != nil {
			return pieces, err
		}
		if answer.LastSeq < answer.FirstSeq {
			break
		}
		v, err := auditlog.Verify(answer.Text, key)
		if err == nil && last != nil {
			err = v.Follows(*last)
		}
		if err != nil {
			return pieces, err
		}
		last = &v
		p, err := t.keep(c, s, v, answer.Text)
		if err != nil {
			return pieces, err
		}
		pieces = append(pieces, p)
		if !answer.More {
			break
		}
		from = answer.LastSeq + 1
	}
	if c.Bool("expire") && len(pieces) > 0 {
		_, err = m.LogExpire(ctx, int64(pieces[len(pieces)-1].Last))
	}
	return pieces, err
}

func (t tool) keep(c *cli.Context, s Source, v auditlog.Verified, text []byte) (piece, error) {
	p := piece{First: v.First, Last: v.Last, Entries: len(v.Records)}
	dir := c.String("outdir")
	if dir == "" {
		return p, nil
	}
	p.File = filepath.Join(dir, fmt.Sprintf("%s-%d-%d.log", s.Name, p.First, p.Last))
	return p, t.env.WriteFile(p.File, text, 0o600, c.Bool("force"))
}
