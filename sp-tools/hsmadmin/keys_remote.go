package hsmadmin

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

func (t tool) keysRemoteSet() *cli.Command {
	return &cli.Command{
		Name: "remote-set", Usage: "let the holder of another key use one service, in place of this host", ArgsUsage: "SERVICE KEYTYPE KEYDATA",
		Flags: common(esnFlag()),
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "SERVICE", "KEYTYPE", "KEYDATA")
			if err != nil {
				return err
			}
			key, err := request.ParseKey(args[1] + " " + args[2])
			if err != nil {
				return err
			}
			if args[0] == enrol.SSHAdmin {
				return console.Usagef("the sshadmin service is handed over with 'hsmadmin keys migrate'")
			}
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			return console.Failed("set the remote key", k.setClient(args[0], key))
		},
	}
}

func (t tool) keysRemoteRemove() *cli.Command {
	return &cli.Command{
		Name: "remote-remove", Usage: "give one service back to this host's key", ArgsUsage: "SERVICE",
		Flags: common(esnFlag()),
		Action: t.with(func(k *call, args []string) error {
			own, err := k.home.PublicKey(enrol.Platform, args[0])
			if err != nil {
				return err
			}
			return console.Failed("remove the remote key", k.setClient(args[0], own.Key))
		}, "SERVICE"),
	}
}

func (k *call) setClient(service string, key ssh.PublicKey) error {
	u, err := k.one()
	if err != nil {
		return err
	}
	return k.onAdmin(u, func(ctx context.Context, admin *sshadmin.SshAdminClient) error {
		if _, err := admin.InstallKeys(ctx, []*sshadmin.ClientKey{{ServiceName: service, ClientKey: request.KeyText(key)}}); err != nil {
			return err
		}
		_, err := fmt.Fprintf(k.env.Stdout, "Service %s of HSM %s now accepts %s.\n", service, u.ESN, ssh.FingerprintSHA256(key))
		return err
	})
}
