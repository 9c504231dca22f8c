package hsmadmin

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/signedlog"
)

func (t tool) logs() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "manage the signed log of an HSM's platform",
		Subcommands: append(signedlog.Commands(t.env, unitLog{t}, []cli.Flag{esnFlag()}, []cli.Flag{esnFlag()}), t.unsignedLogs()...),
	}
}

// unitLog finds the log of an enrolled unit's platform.
type unitLog struct{ tool }

func (l unitLog) Source(c *cli.Context) (signedlog.Source, error) {
	home, err := access.Home(l.env)
	if err != nil {
		return signedlog.Source{}, err
	}
	u, err := platform.One(home, c.String("esn"))
	if err != nil {
		return signedlog.Source{}, err
	}
	key, err := u.Key()
	return signedlog.Source{Name: u.ESN, ESN: u.ESN, Unit: key}, err
}

func (l unitLog) Monitor(c *cli.Context, fn func(ctx context.Context, m *monitor.MonitorClient) error) error {
	k, err := l.begin(c)
	if err != nil {
		return err
	}
	u, err := k.one()
	if err != nil {
		return err
	}
	return k.onMonitor(u, fn)
}
