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

func (t tool) keysMigrate() *cli.Command {
	return &cli.Command{
		Name: "migrate", Usage: "hand the enrolled HSMs over to the host whose private sshadmin key is given",
		Flags: common(
			&cli.StringFlag{Name: "privkeyfile", Usage: "backup of the other host's sshadmin key", Required: true},
			&cli.StringFlag{Name: "passphrase-file", Usage: "file with the backup's passphrase, instead of a prompt"},
			esnFlag(), console.YesFlag(),
		),
		Action: t.with(func(k *call, _ []string) error {
			return console.Failed("migrate keys", k.migrate())
		}),
	}
}

func (k *call) migrate() error {
	private, err := k.home.ReadBackup(k.c.String("privkeyfile"), k.backupPassphrase)
	if err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return err
	}
	units, err := k.units()
	if err != nil {
		return err
	}
	if err := k.env.Confirm(k.c, fmt.Sprintf("This host loses its access to %d HSM(s). Go on?", len(units))); err != nil {
		return err
	}
	for _, u := range units {
		err := k.onAdmin(u, func(ctx context.Context, admin *sshadmin.SshAdminClient) error {
			_, err := admin.InstallKeys(ctx, []*sshadmin.ClientKey{{ServiceName: enrol.SSHAdmin, ClientKey: request.KeyText(key)}})
			return err
		})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(k.env.Stdout, "HSM %s now accepts %s as its sshadmin key. Enroll it on the other host.\n", u.ESN, ssh.FingerprintSHA256(key)); err != nil {
			return err
		}
	}
	return nil
}
