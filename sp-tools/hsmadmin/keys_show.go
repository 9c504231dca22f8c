package hsmadmin

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

type clientKeyJSON struct {
	Service    string `json:"service"`
	Key        string `json:"key"`
	Protection string `json:"protection"`
	Group      string `json:"group,omitempty"`
	Installed  string `json:"installed"`
}

type serverKeyJSON struct {
	ESN       string `json:"esn"`
	Service   string `json:"service"`
	Address   string `json:"address"`
	HostKey   string `json:"host_key"`
	ClientKey string `json:"client_key"`
	Installed string `json:"installed"`
}

func (t tool) keysShow() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "show the public keys of this host and of the enrolled HSMs",
		Flags: common(esnFlag()),
		Action: t.with(func(k *call, _ []string) error {
			return console.Failed("show keys", k.showKeys())
		}),
	}
}

func (k *call) showKeys() error {
	out := struct {
		Client []clientKeyJSON `json:"client"`
		Server []serverKeyJSON `json:"server"`
	}{Client: []clientKeyJSON{}, Server: []serverKeyJSON{}}
	own, err := k.home.Public(enrol.Platform)
	if err != nil {
		return err
	}
	for _, p := range own {
		out.Client = append(out.Client, clientKeyJSON{p.Service, request.KeyText(p.Key), p.Protection, p.Group, p.Installed.UTC().Format(time.RFC3339)})
	}
	units, err := k.units()
	if err != nil && !errkind.Is(err, errkind.NotFound) {
		return err
	}
	for _, u := range units {
		err := k.onAdmin(u, func(ctx context.Context, admin *sshadmin.SshAdminClient) error {
			services, err := k.verified(ctx, u, admin)
			for _, s := range services {
				out.Server = append(out.Server, serverKeyJSON{u.ESN, s.ServiceName, s.Address, s.HostKey, s.ClientKey, stamp(s.Installed)})
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return k.env.Print(k.c, out, func(w io.Writer) error {
		rows := make([][]string, len(out.Client))
		for i, p := range out.Client {
			rows[i] = []string{p.Service, p.Protection, cmp.Or(p.Group, "-"), p.Installed, p.Key}
		}
		console.Table(w, []string{"CLIENT KEY", "PROTECTION", "GROUP", "INSTALLED", "PUBLIC KEY"}, rows)
		rows = make([][]string, len(out.Server))
		for i, s := range out.Server {
			rows[i] = []string{s.ESN, s.Service, s.Address, s.Installed, s.ClientKey}
		}
		console.Table(w, []string{"ESN", "SERVICE", "ADDRESS", "INSTALLED", "AUTHORISED CLIENT KEY"}, rows)
		return nil
	})
}

func stamp(unix int64) string {
	if unix == 0 {
		return "never"
	}
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}
