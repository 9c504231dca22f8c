package hsmadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/updater"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/tenant/access"
)

func (t tool) upgrade() *cli.Command {
	return &cli.Command{
		Name: "upgrade", Usage: "refused by the updater service: the firmware is the installed software", ArgsUsage: "NPKGFILE",
		Flags: common(esnFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "only validate the package"},
			&cli.BoolFlag{Name: "force", Usage: "ignore warnings"},
		),
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "NPKGFILE")
			if err != nil {
				return err
			}
			if err := present(args[0]); err != nil {
				return err
			}
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			u, err := k.one()
			if err != nil {
				return err
			}
			return console.Failed("upgrade", k.onUpdater(u, func(ctx context.Context, s *updater.UpdaterClient) error {
				return s.Upgrade(ctx, nil) // no package is sent: the service takes none
			}))
		},
	}
}

func (k *call) onUpdater(u unitfile.Unit, fn func(ctx context.Context, s *updater.UpdaterClient) error) error {
	ctx, cancel := k.context()
	defer cancel()
	conn, err := access.DialUnit(ctx, k.home, u, platform.Updater, k.timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(ctx, updater.NewUpdaterClient(conn.Thrift()))
}

func (t tool) npkgInfo() *cli.Command {
	return &cli.Command{
		Name: "npkginfo", Usage: "refused: there are no firmware packages for these HSMs", ArgsUsage: "NPKGFILE",
		Flags: []cli.Flag{console.JSONFlag()},
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "NPKGFILE")
			if err != nil {
				return err
			}
			if err := present(args[0]); err != nil {
				return err
			}
			return errkind.Errorf(errkind.Refused, "%s cannot be for these HSMs: their firmware is the installed software and has no packages; 'hsmadmin info' shows what runs", args[0])
		},
	}
}
