package cli

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

func (t tool) setProperties() *cli.Command {
	return &cli.Command{
		Name: "setproperties", Usage: "write a request to change properties of a VCM",
		Flags: slices.Concat(requestFlags(
			uuidFlag("UUID of the VCM whose properties are to change"),
			configFlag(), makerRootFlag(),
		),
			onOff("restrict-startup", "the provider cannot start the VCM without a start request of yours"),
			onOff("autostart", "the VCM starts by itself after a reboot of its HSM"),
			onOff("serial-cardreader", "the VCM has access to the card reader of its HSM"),
			[]cli.Flag{
				&cli.StringFlag{Name: "features", Usage: "features: names separated by |, or a 32-bit hexadecimal word"},
				&cli.StringFlag{Name: "name", Usage: "name of the VCM, visible to the provider only"},
				&cli.StringFlag{Name: "ip-address", Usage: "IP address of the VCM"},
				conductorPortFlag(),
				&cli.BoolFlag{Name: "new-request-key", Usage: "change k_tenant_req to a new key; the present one signs until 'hsmadmin vcm use-request-key'"},
			}),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			home, err := access.Home(t.env)
			if err != nil {
				return err
			}
			return console.Failed("make the request", t.runSetProperties(c, home))
		},
	}
}

func (t tool) runSetProperties(c *cli.Context, home *enrol.Home) error {
	r, err := t.blank(c, request.SetProperties)
	if err != nil {
		return err
	}
	f, id, err := t.target(c, home)
	if err != nil {
		return err
	}
	r.VCM = id
	if r.Properties, err = properties(c); err != nil {
		return err
	}
	if c.Bool("new-request-key") {
		next, err := home.NextKey(enrol.Tenant, enrol.TenantRequest)
		if err != nil {
			return err
		}
		r.Properties.RequestKey = next.PublicKey()
	}
	if len(r.Properties.Names()) == 0 {
		return console.Usagef("no property is given; see '%s --help'", c.Command.HelpName)
	}
	restrict := r.Properties.RestrictStartup
	if restrict != nil && !*restrict && f != nil {
		if r.Share, err = sealShare(home, f, r); err != nil {
			return err
		}
	}
	if err := announceShare(home, r); err != nil {
		return err
	}
	if err := t.write(c, home, r); err != nil {
		return err
	}
	if r.ShareKey != "" {
		return home.LinkShare(r.VCM, r.ID)
	}
	return nil
}
