package vcmadmin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
)

type statsJSON struct {
	UUID          string  `json:"uuid"`
	ESN           string  `json:"esn"`
	State         string  `json:"state"`
	Sampled       string  `json:"sampled"`
	MemoryUse     int64   `json:"memory_use"`
	DiskUse       int64   `json:"disk_use"`
	DiskQuota     int64   `json:"disk_quota"`
	CPUSeconds    float64 `json:"cpu_seconds"`
	Requests      int64   `json:"requests"`
	Tokens        int64   `json:"tokens"`
	Connections   int64   `json:"connections"`
	UptimeSeconds int64   `json:"uptime_seconds"`
}

func (t tool) stats() *cli.Command {
	return &cli.Command{
		Name: "stats", Usage: "print what the VCMs use", ArgsUsage: "[UUID]",
		Flags: common(
			esnFlag("print statistics only for VCMs on the HSM with this ESN"),
			&cli.StringFlag{Name: "uuid", Usage: "print statistics only for this VCM"},
		),
		Action: func(c *cli.Context) error {
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			id := c.String("uuid")
			if id == "" && c.Args().Present() {
				args, err := console.NArgs(c, "UUID")
				if err != nil {
					return err
				}
				id = args[0]
			}
			stats, answered, missing := k.allStats(id)
			if !answered {
				return console.Failed("get statistics", missing)
			}
			if err := k.printStats(stats); err != nil {
				return err
			}
			return console.Failed("get all statistics", missing)
		},
	}
}

func (k *call) allStats(id string) (all []*orchestrator.VcmStats, answered bool, err error) {
	if id != "" {
		err = k.owner(id, func(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) (err error) {
			all, err = h.Stats(ctx, v.Uuid)
			return err
		})
		return all, err == nil, err
	}
	seen := map[string]bool{}
	answered, err = k.each(func(ctx context.Context, h *platform.Hosting) error {
		some, err := h.Stats(ctx, "")
		for _, s := range some {
			if !seen[s.Uuid] {
				seen[s.Uuid] = true
				all = append(all, s)
			}
		}
		return err
	})
	slices.SortFunc(all, func(a, b *orchestrator.VcmStats) int {
		return cmp.Or(cmp.Compare(a.Esn, b.Esn), cmp.Compare(a.Uuid, b.Uuid))
	})
	return all, answered, err
}

func (k *call) printStats(stats []*orchestrator.VcmStats) error {
	out := make([]statsJSON, len(stats))
	rows := make([][]string, len(stats))
	for i, s := range stats {
		sampled := time.UnixMilli(s.Sampled).UTC()
		out[i] = statsJSON{
			UUID: s.Uuid, ESN: s.Esn, State: s.State, Sampled: sampled.Format(time.RFC3339Nano), MemoryUse: s.Memory,
			DiskUse: s.Disk, DiskQuota: s.DiskQuota, CPUSeconds: s.CpuSeconds, Requests: s.Requests, Tokens: s.Tokens,
			Connections: s.Connections, UptimeSeconds: s.UptimeSeconds,
		}
		number := func(n int64) string { return strconv.FormatInt(n, 10) }
		rows[i] = []string{s.Uuid, s.State, size(s.Memory), fmt.Sprintf("%s of %s", size(s.Disk), size(s.DiskQuota)),
			fmt.Sprintf("%.2f s", s.CpuSeconds), number(s.Requests), number(s.Tokens), number(s.Connections),
			(time.Duration(s.UptimeSeconds) * time.Second).String(), sampled.Format(time.RFC3339)}
	}
	return k.env.Print(k.c, out, func(w io.Writer) error {
		console.Table(w, []string{"UUID", "STATE", "MEMORY USE", "DISK USE", "CPU", "REQUESTS", "TOKENS", "CONNECTIONS", "UPTIME", "SAMPLED"}, rows)
		return nil
	})
}
