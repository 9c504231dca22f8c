package hsmadmin

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

func (t tool) keysBackup() *cli.Command {
	return &cli.Command{
		Name: "backup", Usage: "back up this host's private sshadmin key", ArgsUsage: "FILE",
		Flags: common(
			&cli.BoolFlag{Name: "passphrase", Aliases: []string{"p"}, Usage: "protect the backup with a passphrase instead of this host's protections"},
			&cli.StringFlag{Name: "passphrase-file", Usage: "file with the passphrase, instead of a prompt"},
			&cli.BoolFlag{Name: "local", Usage: "a backup that only this host can open is what is wanted"},
			console.ForceFlag(),
		),
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "FILE")
			if err != nil {
				return err
			}
			if c.Bool("local") && (c.Bool("passphrase") || c.IsSet("passphrase-file")) {
				return console.Usagef("--local and --passphrase exclude each other")
			}
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			return console.Failed("back up the sshadmin key", k.backup(args[0]))
		},
	}
}

func (k *call) backup(file string) error {
	if err := console.CheckNew(file, k.c.Bool("force")); err != nil {
		return err
	}
	if k.c.Bool("passphrase") || k.c.IsSet("passphrase-file") {
		passphrase, err := k.env.Secret("Passphrase for the backup: ", k.c.String("passphrase-file"), true)
		if err != nil {
			return err
		}
		if err := k.home.BackupWithPassphrase(enrol.Platform, enrol.SSHAdmin, file, passphrase); err != nil {
			return err
		}
	} else {
		if !k.c.Bool("local") {
			fmt.Fprintln(k.env.Stderr, "WARNING: this backup can be opened on this host only; see --passphrase")
		}
		if err := k.home.Backup(enrol.Platform, enrol.SSHAdmin, file); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(k.env.Stdout, "The sshadmin key is backed up in %s.\n", file)
	return err
}
