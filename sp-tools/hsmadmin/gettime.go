package hsmadmin

import (
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) getTime() *cli.Command {
	return &cli.Command{
		Name: "gettime", Usage: "show the clock of each enrolled HSM beside that of its host",
		Flags: common(esnFlag()),
		Action: t.with(func(k *call, _ []string) error {
			infos, err := k.infos()
			if err != nil {
				return console.Failed("get the time", err)
			}
			type clocks struct {
				ESN    string `json:"esn"`
				Module int64  `json:"module_time"`
				Host   int64  `json:"host_time"`
			}
			out := make([]clocks, len(infos))
			rows := make([][]string, len(infos))
			for i, n := range infos {
				out[i] = clocks{n.Esn, n.ModuleTime, n.HostTime}
				rows[i] = []string{n.Esn, stamp(n.ModuleTime), stamp(n.HostTime)}
			}
			return t.env.Print(k.c, out, func(w io.Writer) error {
				console.Table(w, []string{"ESN", "MODULE CLOCK", "HOST CLOCK"}, rows)
				return nil
			})
		}),
	}
}
