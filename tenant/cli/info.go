package cli

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

type infoJSON struct {
	UUID           string            `json:"uuid"`
	ESN            string            `json:"esn"`
	ModuleID       string            `json:"module_id"`
	HSMModuleID    string            `json:"hsm_module_id"`
	FirmwareID     string            `json:"firmware_id"`
	HardwareID     string            `json:"hardware_id"`
	HSMFeatures    string            `json:"hsm_features"`
	Address        string            `json:"address"`
	Endpoints      map[string]string `json:"endpoints"`
	Properties     map[string]string `json:"properties"`
	IsolationLevel string            `json:"isolation_level,omitempty"`
	State          string            `json:"state"`
}

func (t tool) info() *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "show the enrolled VCMs and the HSM that hosts them",
		Flags: online(uuidFlag("show only this VCM")),
		Action: t.with(func(k *call, _ []string) error {
			files, err := k.selected()
			if err != nil {
				return err
			}
			var out []infoJSON
			for _, f := range files {
				info, err := k.infoOf(f)
				if err != nil {
					return console.Failed("get VCM info", err)
				}
				out = append(out, info)
			}
			return t.env.Print(k.c, out, func(w io.Writer) error { return printInfo(w, files, out) })
		}),
	}
}

func (k *call) infoOf(f *vcmfile.File) (infoJSON, error) {
	root, err := k.home.MakerRoot()
	if err != nil {
		return infoJSON{}, err
	}
	w, err := f.Verify(root)
	if err != nil {
		return infoJSON{}, err
	}
	info := infoJSON{
		UUID: f.UUID, ESN: f.ESN, ModuleID: f.ModuleID, HSMModuleID: w.ModuleID, FirmwareID: w.FirmwareID, HardwareID: w.HardwareID,
		HSMFeatures: w.Features.String(), Address: f.Address, Endpoints: map[string]string{}, Properties: map[string]string{},
		IsolationLevel: f.IsolationLevel, State: "reachable",
	}
	for _, e := range f.Endpoints {
		info.Endpoints[e.Service] = e.Address
	}
	for _, name := range f.Properties.Names() {
		info.Properties[name], _ = f.Properties.Value(name)
	}
	ctx, cancel := k.context()
	defer cancel()
	conn, err := access.DialVCM(ctx, k.home, f, ServiceMonitor, k.timeout)
	if err != nil {
		info.State = "not reachable: " + err.Error()
		return info, nil
	}
	return info, conn.Close()
}

func printInfo(w io.Writer, files []*vcmfile.File, infos []infoJSON) error {
	for i, info := range infos {
		if i > 0 {
			fmt.Fprintln(w)
		}
		pairs := [][2]string{
			{"UUID", info.UUID}, {"MODULE ID", info.ModuleID}, {"STATE", info.State}, {"ADDRESS", info.Address}, {"HSM ESN", info.ESN},
			{"HSM MODULE ID", info.HSMModuleID}, {"HSM FIRMWARE", info.FirmwareID}, {"HSM HARDWARE", info.HardwareID}, {"HSM FEATURES", info.HSMFeatures},
		}
		for _, e := range files[i].Endpoints {
			pairs = append(pairs, [2]string{"SERVICE " + e.Service, e.Address})
		}
		for _, name := range files[i].Properties.Names() {
			pairs = append(pairs, [2]string{"PROPERTY " + name, info.Properties[name]})
		}
		if info.IsolationLevel != "" {
			pairs = append(pairs, [2]string{"ISOLATION", info.IsolationLevel})
		}
		console.Fields(w, pairs...)
	}
	return nil
}
