package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func validityFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "activation", Usage: "`DAY` from which the public key may be used (default: yesterday)"},
		&cli.StringFlag{Name: "expiry", Usage: "last `DAY` on which it may be used (default: five years later)"},
	}
}

func validity(env *console.Env, c *cli.Context) (activates, expires time.Time, err error) {
	yesterday := env.Clock.Now().UTC().AddDate(0, 0, -1)
	if activates, err = dayFlag(c, "activation", yesterday); err != nil {
		return activates, expires, err
	}
	expires, err = dayFlag(c, "expiry", activates.AddDate(5, 0, 0))
	return activates, expires, err
}

func initCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make a KMC with a key pair in a new folder",
		Flags: append([]cli.Flag{
			dirFlag(), console.JSONFlag(),
			&cli.StringFlag{Name: "name", Value: "TEST-KMC", Usage: "the KMC's `NAME`, its KMCID"},
		}, validityFlags()...),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			activates, expires, err := validity(env, c)
			if err != nil {
				return err
			}
			k, err := kmc.Init(c.String("dir"), c.String("name"), activates, expires, rand.Reader)
			if err != nil {
				return err
			}
			return printKey(env, c, k)
		},
	}
}

// keyView is a KMC's public key as it is printed.
type keyView struct {
	KMC       string `json:"kmc"`
	KPN       int    `json:"kpn"`
	Activates string `json:"activates"`
	Expires   string `json:"expires"`
	Record    string `json:"record"`
}

func printKey(env *console.Env, c *cli.Context, k *kmc.KMC) error {
	key, err := k.PublicKey()
	if err != nil {
		return err
	}
	return env.Print(c, viewOf(key), func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "KMC %s, key %d, valid from %s to %s\n", key.KMC, key.KPN,
			key.Activates.Format(time.DateOnly), key.Expires.Format(time.DateOnly))
		return err
	})
}

func viewOf(key keyload.KMCPublicKey) keyView {
	return keyView{KMC: key.KMC, KPN: key.KPN, Activates: key.Activates.Format(time.DateOnly),
		Expires: key.Expires.Format(time.DateOnly), Record: key.Record().String()}
}
