package hsmadmin

import (
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	tenantcli "github.com/tesserae-hsm/tesserae/tenant/cli"
)

func (t tool) envStats() *cli.Command {
	return &cli.Command{
		Name: "getenvstats", Usage: "show statistics of the enrolled HSMs; times are Unix time",
		Flags: common(esnFlag()),
		Action: t.with(func(k *call, _ []string) error {
			units, err := k.units()
			if err != nil {
				return err
			}
			var out []tenantcli.EnvStats
			for _, u := range units {
				s := tenantcli.EnvStats{ESN: u.ESN}
				if err := k.onMonitor(u, s.Read); err != nil {
					return console.Failed("get statistics of HSM "+u.ESN, err)
				}
				out = append(out, s)
			}
			return tenantcli.PrintEnvStats(t.env, k.c, out)
		}),
	}
}
