package ptokenadmin

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

type maintenanceJSON struct {
	Maintenance bool   `json:"maintenance"`
	Since       string `json:"since"`
	ChangedBy   string `json:"changed_by"`
}

func (t tool) printMaintenance(c *cli.Context, m *prismadmin.Maintenance) error {
	out := maintenanceJSON{m.On, stamp(m.Since), m.ChangedBy}
	return t.env.Print(c, out, func(w io.Writer) error {
		word := "off"
		if m.On {
			word = "on"
		}
		console.Fields(w, [2]string{"MAINTENANCE MODE", word}, [2]string{"CHANGED", out.Since}, [2]string{"BY", out.ChangedBy})
		return nil
	})
}

func (t tool) maintenanceShow() *cli.Command {
	return command("show", "show whether the VCM is in maintenance mode", nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "show the maintenance mode", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			m, err := p.MaintenanceShow(ctx)
			if err != nil {
				return err
			}
			return t.printMaintenance(c, m)
		})
	})
}

func (t tool) maintenanceSet(name, usage string, on bool) *cli.Command {
	return command(name, usage, nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "change the maintenance mode", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			m, err := p.MaintenanceSet(ctx, on)
			if err != nil {
				return err
			}
			return t.printMaintenance(c, m)
		})
	})
}
