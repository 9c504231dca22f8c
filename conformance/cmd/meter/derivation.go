package main

import (
	"encoding/hex"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// derivation is what a decoder key is derived from besides the vending key.
type derivation struct {
	drn                        string
	ea, sgc, krn, ti, kt, dkga int
	baseDate                   int
}

// derivationFlags are shared by init and key.
func derivationFlags(vendingRequired bool) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "drn", Required: true, Usage: "meter number of 11 or 13 digits, or PAN of 18"},
		&cli.IntFlag{Name: "ea", Required: true, Usage: "encryption algorithm, 7 (STA) or 11 (MISTY1)"},
		&cli.IntFlag{Name: "sgc", Required: true, Usage: "supply group code"},
		&cli.IntFlag{Name: "krn", Required: true, Usage: "key revision number, 1 to 9, or 0 with --kt 0"},
		&cli.IntFlag{Name: "ti", Required: true, Usage: "tariff index"},
		&cli.IntFlag{Name: "kt", Value: 2, Usage: "key type, 0 initialisation, 1 default, 2 unique, 3 common"},
		&cli.IntFlag{Name: "base-date", Value: 2014, Usage: "base date of the key, 1993, 2014 or 2035"},
		&cli.StringFlag{Name: "vending-key-file", Required: vendingRequired, Usage: "`FILE` with the test vending key to derive the decoder key from"},
		&cli.StringFlag{Name: "dkga", Value: "04", Usage: "decoder key generation algorithm, 02 or 04"},
		&cli.StringFlag{Name: "sta-tables", Usage: "JSON `FILE` with the STA tables (default: the standard's sample tables)"},
	}
}

func readDerivation(c *cli.Context) (derivation, error) {
	d := derivation{
		drn: c.String("drn"), ea: c.Int("ea"), sgc: c.Int("sgc"), krn: c.Int("krn"), ti: c.Int("ti"), kt: c.Int("kt"),
		baseDate: c.Int("base-date"),
	}
	switch c.String("dkga") {
	case "02", "2":
		d.dkga = 2
	case "04", "4":
		d.dkga = 4
	default:
		return d, console.Usagef("--dkga %q is neither 02 nor 04", c.String("dkga"))
	}
	// The ranges keep the conversions to the small types of sts exact.
	for _, f := range []struct {
		name      string
		v, lo, hi int
	}{
		{"ea", d.ea, 7, 11}, {"sgc", d.sgc, 0, 999999}, {"krn", d.krn, 0, 9}, {"ti", d.ti, 0, 99},
		{"kt", d.kt, 0, 3}, {"base-date", d.baseDate, 1993, 2035}, {"ken", c.Int("ken"), 0, 255}, {"tct", c.Int("tct"), 0, 99},
	} {
		if f.v < f.lo || f.v > f.hi {
			return d, console.Usagef("--%s %d is outside %d to %d", f.name, f.v, f.lo, f.hi)
		}
	}
	return d, nil
}

// readKey reads one line of hexadecimal digits.
func readKey(env *console.Env, what, file string) ([]byte, error) {
	text, err := env.Secret("", file, false)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "the %s in %s is not one line of hexadecimal digits", what, file)
	}
	return key, nil
}

// maxTables bounds the file of STA tables.
const maxTables = 64 << 10

func (d derivation) meterTables(c *cli.Context) (*meter.Tables, error) {
	file := c.String("sta-tables")
	if file == "" {
		return nil, nil
	}
	p, err := atomicfile.Read(file, maxTables)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "read STA tables: %w", err)
	}
	tables, err := meter.ParseTables(p)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "--sta-tables: %w", err)
	}
	return tables, nil
}

// decoderKey derives the meter's key from the vending key in file.
func (d derivation) decoderKey(env *console.Env, file string) ([]byte, error) {
	if d.kt == 0 {
		return nil, console.Usagef("an initialisation key (--kt 0) does not derive from a vending key; give --decoder-key-file")
	}
	raw, err := readKey(env, "vending key", file)
	if err != nil {
		return nil, err
	}
	vk, err := sts.NewVendingKey(sts.DKGA(d.dkga), raw)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "vending key in %s: %w", file, err)
	}
	pan, err := sts.ParsePAN(d.drn)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "--drn: %w", err)
	}
	key, err := vk.DecoderKey(sts.KeyParams{
		PAN: pan, EA: sts.EA(d.ea), KT: sts.KeyType(d.kt), SGC: sts.SGC(d.sgc), KRN: sts.KRN(d.krn), TI: sts.TI(d.ti),
		BaseDate: sts.BaseDate(d.baseDate),
	})
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "derive the decoder key: %w", err)
	}
	return key.AppendBytes(nil), nil
}
