package hsmadmin

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/licensing"
)

type infoJSON struct {
	ESN          string `json:"esn"`
	ModuleID     string `json:"module_id"`
	FirmwareID   string `json:"firmware_id"`
	HardwareID   string `json:"hardware_id"`
	Mode         string `json:"mode"`
	Features     int64  `json:"features"`
	FeatureNames string `json:"feature_names"`
	MaxCreatable int32  `json:"max_creatable_vcms"`
	MaxActive    int32  `json:"max_active_vcms"`
	Created      int32  `json:"created_vcms"`
	Active       int32  `json:"active_vcms"`
	ModuleTime   int64  `json:"module_time"`
	HostTime     int64  `json:"host_time"`
	Network      string `json:"network"`
	STATables    string `json:"builtin_sta_tables"`
	Version      string `json:"version"`
}

func (t tool) info() *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "show what the enrolled HSMs are, their licences and limits",
		Flags: common(esnFlag()),
		Action: t.with(func(k *call, _ []string) error {
			infos, err := k.infos()
			if err != nil {
				return console.Failed("get HSM info", err)
			}
			out := make([]infoJSON, len(infos))
			for i, n := range infos {
				out[i] = infoJSON{
					n.Esn, n.ModuleId, n.FirmwareId, n.HardwareId, n.Mode, n.Features, licensing.Features(n.Features).String(), n.MaxCreatableVcms,
					n.MaxActiveVcms, n.CreatedVcms, n.ActiveVcms, n.ModuleTime, n.HostTime, n.Network, n.StaTables, n.Version,
				}
			}
			return t.env.Print(k.c, out, func(w io.Writer) error { return printInfos(w, out) })
		}),
	}
}

func (k *call) infos() ([]*setup.Info, error) {
	units, err := k.units()
	if err != nil {
		return nil, err
	}
	var out []*setup.Info
	for _, u := range units {
		err := k.onSetup(u, func(ctx context.Context, s *setup.SetupClient) error {
			info, err := s.Info(ctx)
			out = append(out, info)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func printInfos(w io.Writer, infos []infoJSON) error {
	for i, n := range infos {
		if i > 0 {
			fmt.Fprintln(w)
		}
		number := func(v int32) string { return strconv.Itoa(int(v)) }
		console.Fields(w,
			[2]string{"ESN", n.ESN}, [2]string{"module_id", n.ModuleID}, [2]string{"firmware_id", n.FirmwareID},
			[2]string{"hardware_id", n.HardwareID}, [2]string{"mode", n.Mode},
			[2]string{"features", n.FeatureNames}, [2]string{"feature_word", licensing.Features(n.Features).Hex()},
			[2]string{"max_creatable_vcms", number(n.MaxCreatable)}, [2]string{"created_vcms", number(n.Created)},
			[2]string{"max_active_vcms", number(n.MaxActive)}, [2]string{"active_vcms", number(n.Active)},
			[2]string{"module_time", stamp(n.ModuleTime)}, [2]string{"host_time", stamp(n.HostTime)},
			[2]string{"network", n.Network}, [2]string{"builtin_sta_tables", n.STATables}, [2]string{"version", n.Version})
	}
	return nil
}
