package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

func warrantCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:      "warrant",
		Usage:     "install the maker's warrant; the first one pins the maker's root",
		ArgsUsage: "FILE",
		Flags: []cli.Flag{
			stateFlag(), guardFlag(),
			&cli.StringFlag{Name: "maker-root", Usage: "file with the maker's public root key that must have signed"},
		},
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "FILE")
			if err != nil {
				return err
			}
			file, err := atomicfile.Read(args[0], armor.MaxSize)
			if err != nil {
				return errkind.Errorf(errkind.Invalid, "warrant: %w", err)
			}
			root, err := readRoot(c.String("maker-root"))
			if err != nil {
				return err
			}
			u, err := device.Open(c.Context, config(env, c, env.Logger(c)))
			if err != nil {
				return err
			}
			defer u.Close()
			w, err := u.InstallWarrant(file, root)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "Warrant of unit %s installed. Features: %s (%s)\n", w.ESN, w.Features, w.Features.Hex())
			return nil
		},
	}
}

func readRoot(path string) (ssh.PublicKey, error) {
	if path == "" {
		return nil, nil
	}
	text, err := atomicfile.Read(path, armor.MaxSize)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "maker's root: %w", err)
	}
	return warrant.ParseKey(string(text))
}
