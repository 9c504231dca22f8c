package hsmadmin

import (
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/tenant/access"
)

type statusJSON struct {
	ESN     string `json:"esn"`
	Service string `json:"service"`
	Address string `json:"address"`
	State   string `json:"state"`
}

func (t tool) status() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show whether the services of the enrolled HSMs can be used from this host",
		Flags: common(esnFlag()),
		Action: t.with(func(k *call, _ []string) error {
			units, err := k.units()
			if err != nil {
				return err
			}
			var out []statusJSON
			var rows [][]string
			var worst error
			for _, u := range units {
				for _, s := range u.Services {
					state := "ok"
					if err := k.probe(u, s.Name); err != nil {
						state = err.Error()
						worst = err
					}
					out = append(out, statusJSON{u.ESN, s.Name, s.Address, state})
					rows = append(rows, []string{u.ESN, s.Name, s.Address, state})
				}
			}
			err = t.env.Print(k.c, out, func(w io.Writer) error {
				console.Table(w, []string{"ESN", "SERVICE", "ADDRESS", "STATE"}, rows)
				return nil
			})
			if err == nil && worst != nil {
				return errkind.Errorf(errkind.Of(worst), "not every service can be used")
			}
			return err
		}),
	}
}

func (k *call) probe(u unitfile.Unit, service string) error {
	ctx, cancel := k.context()
	defer cancel()
	conn, err := access.DialUnit(ctx, k.home, u, service, k.timeout)
	if err != nil {
		return err
	}
	return conn.Close()
}
