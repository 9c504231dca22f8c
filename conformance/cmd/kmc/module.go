package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func moduleCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:        "module",
		Usage:       "the security modules that the KMC knows",
		Subcommands: []*cli.Command{moduleAddCommand(env), moduleListCommand(env)},
	}
}

func moduleAddCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "add",
		Usage: "make a module known by its public key",
		Flags: []cli.Flag{dirFlag(), console.JSONFlag(),
			&cli.StringFlag{Name: "file", Required: true, Usage: "`FILE` with the module's SM.PUBKEY.1 record"},
			&cli.StringFlag{Name: "maker-root", Usage: "`FILE` with the public root key of the modules' maker; the record must lead to it (default: the record is trusted as it is)"}},
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			text, err := readInput(c.String("file"))
			if err != nil {
				return err
			}
			m, err := addModule(k, text, c.String("maker-root"))
			if err != nil {
				return err
			}
			return env.Print(c, m, func(w io.Writer) error {
				proof := ""
				if m.Unit != "" {
					proof = ", attested by unit " + m.Unit
				}
				_, err := fmt.Fprintf(w, "module %s (%s, %s) is known%s\n", m.ID, m.HardwareID, m.FirmwareID, proof)
				return err
			})
		},
	}
}

func addModule(k *kmc.KMC, text, rootFile string) (kmc.Module, error) {
	if rootFile == "" {
		return k.AddModule(text)
	}
	line, err := readInput(rootFile)
	if err != nil {
		return kmc.Module{}, err
	}
	root, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return kmc.Module{}, errkind.Errorf(errkind.Invalid, "%s is no public key of a maker: %w", rootFile, err)
	}
	return k.AddAttestedModule(text, root)
}

// moduleView is a module in a list.
type moduleView struct {
	ID         string `json:"id"`
	HardwareID string `json:"hardwareId"`
	FirmwareID string `json:"firmwareId"`
	Unit       string `json:"unit"`
	Authorised int    `json:"authorisedKeys"`
}

func moduleListCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the known modules",
		Flags: []cli.Flag{dirFlag(), console.JSONFlag()},
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			views := []moduleView{}
			var rows [][]string
			for _, m := range k.Modules() {
				n := len(k.Authorised(m.ID))
				views = append(views, moduleView{m.ID, m.HardwareID, m.FirmwareID, m.Unit, n})
				rows = append(rows, []string{m.ID, m.HardwareID, m.FirmwareID, m.Unit, fmt.Sprint(n)})
			}
			return env.Print(c, views, func(w io.Writer) error {
				console.Table(w, []string{"Module", "Hardware", "Firmware", "Attested by unit", "Authorised keys"}, rows)
				return nil
			})
		},
	}
}
