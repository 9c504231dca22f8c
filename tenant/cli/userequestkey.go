package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

func (t tool) useRequestKey() *cli.Command {
	return &cli.Command{
		Name: "use-request-key", Usage: "the provider has set k_tenant_req: sign requests with the new key from now on",
		Flags: []cli.Flag{console.YesFlag(), console.VerboseFlag()},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			home, err := access.Home(t.env)
			if err != nil {
				return err
			}
			if !home.HasNext(enrol.Tenant, enrol.TenantRequest) {
				return errkind.Errorf(errkind.Mode, "there is no new request-signing key; 'hsmadmin vcm setproperties --new-request-key' makes one")
			}
			if err := t.env.Confirm(c, "The present request-signing key is destroyed. Has the provider set k_tenant_req?"); err != nil {
				return err
			}
			if err := home.UseNext(enrol.Tenant, enrol.TenantRequest); err != nil {
				return err
			}
			key, err := home.PublicKey(enrol.Tenant, enrol.TenantRequest)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(t.env.Stdout, "Requests are signed with %s from now on.\n", request.KeyText(key.Key))
			return err
		},
	}
}
