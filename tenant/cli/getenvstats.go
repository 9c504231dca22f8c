package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

type envStatsJSON struct {
	UUID       string  `json:"uuid"`
	SystemTime int64   `json:"system_time"`
	Uptime     int64   `json:"uptime"`
	MemUsed    int64   `json:"mem_used"`
	DiskUsed   int64   `json:"disk_used"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

func (t tool) envStats() *cli.Command {
	return &cli.Command{
		Name: "getenvstats", Usage: "show statistics of a VCM; times are Unix time",
		Flags: online(uuidFlag("UUID of the VCM; all enrolled ones without it")),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			files, err := k.selected()
			if err != nil {
				return err
			}
			var out []envStatsJSON
			for _, f := range files {
				err := k.onMonitor(f, func(ctx context.Context, m *monitor.MonitorClient) error {
					s, err := m.EnvStats(ctx)
					if err != nil {
						return err
					}
					out = append(out, envStatsJSON{f.UUID, s.SystemTime, s.UptimeSeconds, s.MemUsed, s.DiskUsed, s.CpuSeconds})
					return nil
				})
				if err != nil {
					return failed("get statistics of VCM "+f.UUID, err)
				}
			}
			return t.env.Print(c, out, func(w io.Writer) error {
				for i, s := range out {
					if i > 0 {
						fmt.Fprintln(w)
					}
					console.Fields(w, [2]string{"UUID", s.UUID}, [2]string{"system_time", strconv.FormatInt(s.SystemTime, 10)},
						[2]string{"uptime", strconv.FormatInt(s.Uptime, 10)}, [2]string{"mem_used", strconv.FormatInt(s.MemUsed, 10)},
						[2]string{"disk_used", strconv.FormatInt(s.DiskUsed, 10)}, [2]string{"cpu_seconds", fmt.Sprintf("%.2f", s.CPUSeconds)})
				}
				return nil
			})
		},
	}
}

// onMonitor does fn with the monitor service of a VCM.
func (k *call) onMonitor(f *vcmfile.File, fn func(ctx context.Context, m *monitor.MonitorClient) error) error {
	ctx, cancel := k.context()
	defer cancel()
	conn, err := access.DialVCM(ctx, k.home, f, ServiceMonitor, k.timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(ctx, monitor.NewMonitorClient(conn.Thrift()))
}
