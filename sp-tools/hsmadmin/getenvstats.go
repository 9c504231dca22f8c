package hsmadmin

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

type envStatsJSON struct {
	ESN        string  `json:"esn"`
	SystemTime int64   `json:"system_time"`
	Uptime     int64   `json:"uptime"`
	MemUsed    int64   `json:"mem_used"`
	DiskUsed   int64   `json:"disk_used"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

func (t tool) envStats() *cli.Command {
	return &cli.Command{
		Name: "getenvstats", Usage: "show statistics of the enrolled HSMs; times are Unix time",
		Flags: common(esnFlag()),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			units, err := k.units()
			if err != nil {
				return err
			}
			var out []envStatsJSON
			for _, u := range units {
				err := k.onMonitor(u, func(ctx context.Context, m *monitor.MonitorClient) error {
					s, err := m.EnvStats(ctx)
					if err != nil {
						return err
					}
					out = append(out, envStatsJSON{u.ESN, s.SystemTime, s.UptimeSeconds, s.MemUsed, s.DiskUsed, s.CpuSeconds})
					return nil
				})
				if err != nil {
					return failed("get statistics of HSM "+u.ESN, err)
				}
			}
			return t.env.Print(c, out, func(w io.Writer) error {
				for i, s := range out {
					if i > 0 {
						fmt.Fprintln(w)
					}
					console.Fields(w, [2]string{"ESN", s.ESN}, [2]string{"system_time", strconv.FormatInt(s.SystemTime, 10)},
						[2]string{"uptime", strconv.FormatInt(s.Uptime, 10)}, [2]string{"mem_used", strconv.FormatInt(s.MemUsed, 10)},
						[2]string{"disk_used", strconv.FormatInt(s.DiskUsed, 10)}, [2]string{"cpu_seconds", fmt.Sprintf("%.2f", s.CPUSeconds)})
				}
				return nil
			})
		},
	}
}
