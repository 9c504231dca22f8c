package hsmadmin

import (
	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

func (t tool) keysRestore() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "restore the private sshadmin key from a backup, and install keys for all other services", ArgsUsage: "FILE",
		Flags: common(
			&cli.StringFlag{Name: "passphrase-file", Usage: "file with the backup's passphrase, instead of a prompt"},
			console.YesFlag(),
		),
		Action: t.with(func(k *call, args []string) error {
			return console.Failed("restore keys", k.restore(args[0]))
		}, "FILE"),
	}
}

func (k *call) restore(file string) error {
	private, err := k.home.ReadBackup(file, k.backupPassphrase)
	if err != nil {
		return err
	}
	if _, err := k.home.PublicKey(enrol.Platform, enrol.SSHAdmin); err == nil {
		if err := k.env.Confirm(k.c, "This host has an sshadmin key, which the backup replaces. Go on?"); err != nil {
			return err
		}
	}
	if err := k.home.SetNext(enrol.Platform, enrol.SSHAdmin, private); err != nil {
		return err
	}
	if _, err := k.home.PublicKey(enrol.Platform, enrol.SSHAdmin); err != nil { // nothing to keep until the units agree
		if err := k.home.UseNext(enrol.Platform, enrol.SSHAdmin); err != nil {
			return err
		}
	}
	return k.rollKeys(func(service string) (ssh.Signer, error) {
		if service == enrol.SSHAdmin && !k.home.HasNext(enrol.Platform, service) {
			return k.present(service)
		}
		return k.next(service)
	})
}
