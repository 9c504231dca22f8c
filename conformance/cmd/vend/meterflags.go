package main

import (
	"math"
	"math/big"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// meterFlags describe the meter to vend to. Ranges beyond the API's integer
// widths are the server's to judge: a black-box client must be able to send them.
func meterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "drn", Required: true, Usage: "meter number of 11 or 13 digits, or PAN of 18"},
		&cli.IntFlag{Name: "ea", Required: true, Usage: "encryption algorithm, 7 or 11"},
		&cli.IntFlag{Name: "tct", Value: 2, Usage: "token carrier type"},
		&cli.IntFlag{Name: "sgc", Required: true, Usage: "supply group code"},
		&cli.IntFlag{Name: "krn", Value: 1, Usage: "key revision number"},
		&cli.IntFlag{Name: "ti", Required: true, Usage: "tariff index"},
		&cli.IntFlag{Name: "ken", Value: 255, Usage: "the meter's key expiry number"},
		&cli.StringFlag{Name: "doe", Value: "0000", Usage: "date of expiry of the card, YYMM"},
		&cli.BoolFlag{Name: "allow-3kct", Usage: "let an EA07 key change take three tokens"},
		&cli.BoolFlag{Name: "allow-krn-update", Value: true, Usage: "add a key change when a newer key revision exists"},
		&cli.BoolFlag{Name: "allow-ken-update", Value: true, Usage: "add a key change when the key expiry number differs"},
	}
}

// amendmentFlags describe a new configuration.
func amendmentFlags(required bool) []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "to-sgc", Required: required, Usage: "new supply group code"},
		&cli.IntFlag{Name: "to-krn", Required: required, Usage: "new key revision number"},
		&cli.IntFlag{Name: "to-ti", Required: required, Usage: "new tariff index"},
	}
}

func readMeter(c *cli.Context) (*prismtoken1.MeterConfigIn, error) {
	m := prismtoken1.NewMeterConfigIn()
	m.Drn, m.Doe = c.String("drn"), c.String("doe")
	m.Allow3Kct, m.AllowKrnUpdate, m.AllowKenUpdate = c.Bool("allow-3kct"), c.Bool("allow-krn-update"), c.Bool("allow-ken-update")
	var err error
	if m.Sgc, err = int32Flag(c, "sgc"); err != nil {
		return nil, err
	}
	for name, field := range map[string]*int16{"ea": &m.Ea, "tct": &m.Tct, "krn": &m.Krn, "ti": &m.Ti, "ken": &m.Ken} {
		if *field, err = int16Flag(c, name); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// readAmendment returns nil when none of its options is given.
func readAmendment(c *cli.Context) (*prismtoken1.MeterConfigAmendment, error) {
	given := 0
	for _, name := range []string{"to-sgc", "to-krn", "to-ti"} {
		if c.IsSet(name) {
			given++
		}
	}
	switch given {
	case 0:
		return nil, nil
	case 3:
	default:
		return nil, console.Usagef("--to-sgc, --to-krn and --to-ti belong together")
	}
	sgc, err := int32Flag(c, "to-sgc")
	if err != nil {
		return nil, err
	}
	krn, err := int16Flag(c, "to-krn")
	if err != nil {
		return nil, err
	}
	ti, err := int16Flag(c, "to-ti")
	if err != nil {
		return nil, err
	}
	return &prismtoken1.MeterConfigAmendment{ToSgc: sgc, ToKrn: krn, ToTi: ti}, nil
}

func int16Flag(c *cli.Context, name string) (int16, error) {
	n := c.Int(name)
	if n < math.MinInt16 || n > math.MaxInt16 {
		return 0, console.Usagef("--%s %d does not fit 16 bits", name, n)
	}
	return int16(n), nil
}

func int32Flag(c *cli.Context, name string) (int32, error) {
	n := c.Int(name)
	if n < math.MinInt32 || n > math.MaxInt32 {
		return 0, console.Usagef("--%s %d does not fit 32 bits", name, n)
	}
	return int32(n), nil
}

// kWh turns a decimal number of kWh into the API's units of 0.1 kWh, without
// binary rounding before the multiplication.
func kWh(text string) (float64, error) {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, console.Usagef("--kwh %q is not a number", text)
	}
	units, _ := r.Mul(r, big.NewRat(10, 1)).Float64()
	return units, nil
}
