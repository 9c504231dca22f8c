package cli

import (
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

func (t tool) create() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "write a request to create a VCM",
		Flags: requestFlags(
			&cli.BoolFlag{Name: "restrict-startup", Usage: "the provider cannot start the VCM without a start request of yours"},
			&cli.BoolFlag{Name: "autostart", Usage: "the VCM starts by itself after a reboot of its HSM"},
			&cli.BoolFlag{Name: "serial-cardreader", Usage: "the VCM has access to the card reader of its HSM"},
			&cli.StringFlag{Name: "features", Usage: "features: names separated by |, or a 32-bit hexadecimal word"},
			&cli.StringFlag{Name: "name", Usage: "name of the VCM, visible to the provider only"},
			conductorPortFlag(),
		),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			home, err := access.Home(t.env)
			if err != nil {
				return err
			}
			r, err := t.blank(c, request.Create)
			if err != nil {
				return err
			}
			if r.Properties, err = properties(c); err != nil {
				return err
			}
			if err := introduce(home, r); err != nil {
				return console.Failed("make the request", err)
			}
			return console.Failed("make the request", t.write(c, home, r))
		},
	}
}

// introduce puts the tenant's keys into a create request, and makes them on
// first use.
func introduce(h *enrol.Home, r *request.Request) error {
	signing, _, err := h.EnsureKey(enrol.Tenant, enrol.TenantRequest)
	if err != nil {
		return err
	}
	admin, _, err := h.EnsureKey(enrol.Tenant, enrol.SSHAdmin)
	if err != nil {
		return err
	}
	r.RequestKey, r.SSHAdminKey = signing.PublicKey(), admin.PublicKey()
	return announceShare(h, r)
}

// SingleRequest makes the request that single-setup sends: a VCM that starts by
// itself, with everything else left to the provider.
func SingleRequest(h *enrol.Home, now time.Time, name string) ([]byte, error) {
	now = now.UTC().Truncate(time.Second)
	auto := true
	r := &request.Request{
		Kind: request.Create, ID: uuid.NewString(), Created: now, NotBefore: now.Add(-skew), Expires: now.Add(time.Hour),
		Properties: request.Properties{Name: &name, Autostart: &auto},
	}
	if err := introduce(h, r); err != nil {
		return nil, err
	}
	signer, err := h.Key(enrol.Tenant, enrol.TenantRequest)
	if err != nil {
		return nil, err
	}
	return r.Sign(signer)
}
