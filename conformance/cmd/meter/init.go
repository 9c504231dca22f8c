package main

import (
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// shelf is how long before its first use a meter is taken to have been made,
// where --manufactured does not say.
const shelf = 30 * 24 * time.Hour

func initCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make a meter with a decoder key, or one derived from a test vending key",
		Flags: append([]cli.Flag{
			stateFlag(),
			&cli.IntFlag{Name: "ken", Value: 255, Usage: "key expiry number"},
			&cli.IntFlag{Name: "tct", Value: 2, Usage: "token carrier type, 1 magnetic card, 2 numeric"},
			&cli.StringFlag{Name: "decoder-key-file", Usage: "`FILE` with the decoder key, or the DITK with --kt 0"},
			&cli.StringFlag{Name: "manufactured", Usage: "`TIME` (RFC 3339) that fills the TID memory (default: 30 days ago)"},
		}, derivationFlags(false)...),
		Action: func(c *cli.Context) error { return runInit(env, c) },
	}
}

func runInit(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	made := env.Clock.Now().Add(-shelf)
	if text := c.String("manufactured"); text != "" {
		var err error
		if made, err = time.Parse(time.RFC3339, text); err != nil {
			return console.Usagef("--manufactured: %s", err)
		}
	}
	d, err := readDerivation(c)
	if err != nil {
		return err
	}
	tables, err := d.meterTables(c)
	if err != nil {
		return err
	}
	key, err := initialKey(env, c, d)
	if err != nil {
		return err
	}
	m, err := meter.New(meter.Config{
		DRN: d.drn, EA: d.ea, TCT: c.Int("tct"), SGC: uint32(d.sgc), KRN: d.krn, TI: d.ti, KT: d.kt, KEN: c.Int("ken"),
		BaseDate: d.baseDate, DecoderKey: key, STATables: tables, Manufactured: made,
	})
	if err != nil {
		return err
	}
	path := c.String("state")
	unlock, err := lock(path)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(path); err == nil {
		return errkind.Errorf(errkind.Refused, "%s exists; a new meter does not replace another", path)
	}
	if err := m.Save(path); err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "meter %s written to %s\n", m.State().DRN, path)
	return err
}

// initialKey reads the decoder key, or derives it from a vending key.
func initialKey(env *console.Env, c *cli.Context, d derivation) ([]byte, error) {
	decoder, vending := c.String("decoder-key-file"), c.String("vending-key-file")
	switch {
	case (decoder == "") == (vending == ""):
		return nil, console.Usagef("give exactly one of --decoder-key-file and --vending-key-file")
	case decoder != "":
		return readKey(env, "decoder key", decoder)
	}
	return d.decoderKey(env, vending)
}
