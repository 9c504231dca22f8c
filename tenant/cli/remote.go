package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// remoteSet is for a service that other software uses, such as a vending system
// with OpenSSH and the Conductor.
func (t tool) remoteSet() *cli.Command {
	return &cli.Command{
		Name: "remote-set", Usage: "let the holder of another key use one service of a VCM, in place of this host", ArgsUsage: "SERVICE KEYTYPE KEYDATA",
		Flags: online(uuidFlag("UUID of the VCM; may be left out if only one is enrolled")),
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "SERVICE", "KEYTYPE", "KEYDATA")
			if err != nil {
				return err
			}
			key, err := request.ParseKey(args[1] + " " + args[2])
			if err != nil {
				return err
			}
			if args[0] == ServiceSSHAdmin {
				return console.Usagef("the sshadmin service stays with the host that enrolled the VCM")
			}
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			return console.Failed("set the remote key", k.setClient(args[0], key))
		},
	}
}

func (t tool) remoteRemove() *cli.Command {
	return &cli.Command{
		Name: "remote-remove", Usage: "give one service of a VCM back to this host's key", ArgsUsage: "SERVICE",
		Flags: online(uuidFlag("UUID of the VCM; may be left out if only one is enrolled")),
		Action: t.with(func(k *call, args []string) error {
			own, err := k.home.PublicKey(enrol.Tenant, args[0])
			if err != nil {
				return err
			}
			return console.Failed("remove the remote key", k.setClient(args[0], own.Key))
		}, "SERVICE"),
	}
}

func (k *call) setClient(service string, key ssh.PublicKey) error {
	f, err := k.home.VCM(k.c.String("uuid"))
	if err != nil {
		return err
	}
	address, err := f.Endpoint(service)
	if err != nil {
		return errkind.Errorf(errkind.NotFound, "VCM %s has no SSH service %q", f.UUID, service)
	}
	ctx, cancel := k.context()
	defer cancel()
	conn, err := access.DialVCM(ctx, k.home, f, ServiceSSHAdmin, k.timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	admin := sshadmin.NewSshAdminClient(conn.Thrift())
	if _, err := admin.InstallKeys(ctx, []*sshadmin.ClientKey{{ServiceName: service, ClientKey: request.KeyText(key)}}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(k.env.Stdout, "Service %s of VCM %s at %s now accepts %s.\n", service, f.UUID, address, ssh.FingerprintSHA256(key))
	return err
}
