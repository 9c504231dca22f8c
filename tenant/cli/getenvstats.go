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

// EnvStats are the statistics of a VCM or of an HSM, as they are printed.
type EnvStats struct {
	UUID       string  `json:"uuid,omitempty"`
	ESN        string  `json:"esn,omitempty"`
	SystemTime int64   `json:"system_time"`
	Uptime     int64   `json:"uptime"`
	MemUsed    int64   `json:"mem_used"`
	DiskUsed   int64   `json:"disk_used"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

// Read asks a monitor service.
func (e *EnvStats) Read(ctx context.Context, m *monitor.MonitorClient) error {
	s, err := m.EnvStats(ctx)
	if err != nil {
		return err
	}
	e.SystemTime, e.Uptime, e.MemUsed, e.DiskUsed, e.CPUSeconds = s.SystemTime, s.UptimeSeconds, s.MemUsed, s.DiskUsed, s.CpuSeconds
	return nil
}

// PrintEnvStats is what a command says after Read.
func PrintEnvStats(env *console.Env, c *cli.Context, all []EnvStats) error {
	return env.Print(c, all, func(w io.Writer) error {
		for i, s := range all {
			if i > 0 {
				fmt.Fprintln(w)
			}
			name := [2]string{"UUID", s.UUID}
			if s.UUID == "" {
				name = [2]string{"ESN", s.ESN}
			}
			number := func(n int64) string { return strconv.FormatInt(n, 10) }
			console.Fields(w, name, [2]string{"system_time", number(s.SystemTime)}, [2]string{"uptime", number(s.Uptime)},
				[2]string{"mem_used", number(s.MemUsed)}, [2]string{"disk_used", number(s.DiskUsed)},
				[2]string{"cpu_seconds", fmt.Sprintf("%.2f", s.CPUSeconds)})
		}
		return nil
	})
}

func (t tool) envStats() *cli.Command {
	return &cli.Command{
		Name: "getenvstats", Usage: "show statistics of a VCM; times are Unix time",
		Flags: online(uuidFlag("UUID of the VCM; all enrolled ones without it")),
		Action: t.with(func(k *call, _ []string) error {
			files, err := k.selected()
			if err != nil {
				return err
			}
			var out []EnvStats
			for _, f := range files {
				s := EnvStats{UUID: f.UUID}
				if err := k.onMonitor(f, s.Read); err != nil {
					return console.Failed("get statistics of VCM "+f.UUID, err)
				}
				out = append(out, s)
			}
			return PrintEnvStats(t.env, k.c, out)
		}),
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
