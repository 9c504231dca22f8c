package cli

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

// logService is the name under which the unit certifies a VCM's log key.
const logService = "auditlog"

// exported is one file of an export.
type exported struct {
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Entries int    `json:"entries"`
	File    string `json:"file,omitempty"`
}

func (t tool) logsExport() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "retrieve and validate the signed log of a VCM",
		Flags: online(
			uuidFlag("UUID of the VCM; may be left out if only one is enrolled"),
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
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			f, err := k.home.VCM(c.String("uuid"))
			if err != nil {
				return err
			}
			var files []exported
			err = k.onMonitor(f, func(ctx context.Context, m *monitor.MonitorClient) (err error) {
				files, err = k.export(ctx, f, m)
				return err
			})
			if err != nil {
				return failed("export the log", err)
			}
			return t.env.Print(c, files, func(w io.Writer) error {
				for _, e := range files {
					fmt.Fprintf(w, "entries %d to %d: signature and chain good%s\n", e.First, e.Last, inFile(e.File))
				}
				if len(files) == 0 {
					fmt.Fprintln(w, "There is nothing to export.")
				}
				return nil
			})
		},
	}
}

func inFile(path string) string {
	if path == "" {
		return ""
	}
	return ", in " + path
}

// export fetches piece after piece. Each is verified and written before the
// next one is asked for, and expired only after that.
func (k *call) export(ctx context.Context, f *vcmfile.File, m *monitor.MonitorClient) ([]exported, error) {
	line, err := m.LogKey(ctx)
	if err != nil {
		return nil, err
	}
	key, err := logKey(f, line)
	if err != nil {
		return nil, err
	}
	saved, outdir := k.c.Bool("saved"), k.c.String("outdir")
	var files []exported
	var last *auditlog.Verified
	for from := int64(0); ; {
		piece, err := m.LogExport(ctx, from, saved)
		if err != nil {
			return files, err
		}
		if piece.LastSeq < piece.FirstSeq {
			break
		}
		v, err := auditlog.Verify(piece.Text, key)
		if err != nil {
			return files, err
		}
		if last != nil {
			if err := v.Follows(*last); err != nil {
				return files, err
			}
		}
		last = &v
		e := exported{First: v.First, Last: v.Last, Entries: len(v.Records)}
		if outdir != "" {
			e.File = filepath.Join(outdir, fmt.Sprintf("%s-%d-%d.log", f.UUID, e.First, e.Last))
			if err := k.env.WriteFile(e.File, piece.Text, 0o600, k.c.Bool("force")); err != nil {
				return files, err
			}
		}
		files = append(files, e)
		if !piece.More {
			break
		}
		from = piece.LastSeq + 1
	}
	if k.c.Bool("expire") && len(files) > 0 {
		_, err = m.LogExpire(ctx, int64(files[len(files)-1].Last))
	}
	return files, err
}

// logKey is the key that the VCM's unit certified for its log.
func logKey(f *vcmfile.File, line string) (ed25519.PublicKey, error) {
	unit, err := f.Key()
	if err != nil {
		return nil, err
	}
	key, err := auditlog.CertifiedKey(line, unit, hsmapi.Principal(f.ESN, f.UUID, logService))
	if err != nil {
		return nil, errkind.Errorf(errkind.Of(err), "the log key of VCM %s: %w", f.UUID, err)
	}
	return key, nil
}
