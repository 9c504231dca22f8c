package cli

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/signedlog"
)

func (t tool) logs() *cli.Command {
	id := uuidFlag("UUID of the VCM; may be left out if only one is enrolled")
	return &cli.Command{
		Name: "logs", Usage: "manage the signed log of a VCM",
		Subcommands: signedlog.Commands(t.env, vcmLog{t}, []cli.Flag{id}, []cli.Flag{id, configFlag(), makerRootFlag()}),
	}
}

// vcmLog finds the log of an enrolled VCM.
type vcmLog struct{ tool }

func (l vcmLog) Source(c *cli.Context) (signedlog.Source, error) {
	home, err := access.Home(l.env)
	if err != nil {
		return signedlog.Source{}, err
	}
	f, id, err := l.target(c, home)
	if err != nil {
		return signedlog.Source{}, err
	}
	if f == nil {
		return signedlog.Source{}, errkind.Errorf(errkind.NotFound, "VCM %s is not enrolled on this host", id)
	}
	key, err := f.Key()
	return signedlog.Source{Name: f.UUID, ESN: f.ESN, UUID: f.UUID, Unit: key}, err
}

func (l vcmLog) Monitor(c *cli.Context, fn func(ctx context.Context, m *monitor.MonitorClient) error) error {
	k, err := l.begin(c)
	if err != nil {
		return err
	}
	f, err := k.home.VCM(c.String("uuid"))
	if err != nil {
		return err
	}
	return k.onMonitor(f, fn)
}
