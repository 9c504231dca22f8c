package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

func loadCommand(env *console.Env) *cli.Command {
	optional := meterFlags()
	for _, f := range optional {
		switch f := f.(type) {
		case *cli.StringFlag:
			f.Required = false
		case *cli.IntFlag:
			f.Required = false
		}
	}
	return &cli.Command{
		Name:  "load",
		Usage: "issue credit tokens from many clients at once and measure it",
		Description: "The meters come from --meters, one JSON object a line with the fields of\n" +
			"MeterConfigIn (drn, ea, tct, sgc, krn, ti, ken...; absent ones take the\n" +
			"interface's defaults), or is the one that --drn and its siblings describe.\n" +
			"Every call's outcome is written to --output, one JSON object a line.",
		Flags: flagSets(userFlags(), optional, []cli.Flag{
			&cli.StringFlag{Name: "meters", Usage: "`FILE` of meters, one JSON object a line"},
			&cli.IntFlag{Name: "subclass", Usage: "subclass of the credit"},
			&cli.Float64Flag{Name: "amount", Value: 1, Usage: "transferAmount of each token"},
			&cli.IntFlag{Name: "clients", Value: 1, Usage: "clients at once, each on its own connection"},
			&cli.IntFlag{Name: "count", Usage: "stop after so many calls"},
			&cli.DurationFlag{Name: "duration", Usage: "stop after this time"},
			&cli.DurationFlag{Name: "recover", Usage: "how long to try to come back after a lost connection, then fetch the lost answer"},
			&cli.StringFlag{Name: "output", Usage: "new `FILE` for the outcomes"},
		}),
		Action: func(c *cli.Context) error { return runLoad(env, c) },
	}
}

func runLoad(env *console.Env, c *cli.Context) (err error) {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	load := vending.Load{
		User: c.String("user"), Amount: c.Float64("amount"), Clients: c.Int("clients"), Calls: c.Int("count"),
		Duration: c.Duration("duration"), Recover: c.Duration("recover"),
	}
	if load.Subclass, err = int16Flag(c, "subclass"); err != nil {
		return err
	}
	if load.Meters, err = loadMeters(c); err != nil {
		return err
	}
	if load.Server, err = serverConfig(env, c); err != nil {
		return err
	}
	if load.Password, err = env.Secret("", c.String("password-file"), false); err != nil {
		return err
	}
	if path := c.String("output"); path != "" {
		f, openErr := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if openErr != nil {
			return errkind.Errorf(errkind.Invalid, "--output: %w", openErr)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		enc := json.NewEncoder(f) // unbuffered: a token that was returned is on record
		load.Record = func(call vending.Call) error { return enc.Encode(call) }
	}
	report, runErr := load.Run(c.Context)
	if runErr != nil && report.Calls == 0 {
		return runErr
	}
	return errors.Join(runErr, env.Print(c, report, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%d tokens from %d clients in %.2f s: %.0f tokens/s, p50 %.2f ms, p99 %.2f ms; %d calls, %d errors, %d fetched\n",
			report.Tokens, report.Clients, report.Seconds, report.PerSecond, report.P50Millis, report.P99Millis, report.Calls, report.Errors, report.Fetched)
		for _, code := range slices.Sorted(maps.Keys(report.Codes)) {
			if err == nil {
				_, err = fmt.Fprintf(w, "  %s: %d\n", code, report.Codes[code])
			}
		}
		return err
	}))
}

// maxMeters bounds the file of meters.
const maxMeters = 16 << 20

func loadMeters(c *cli.Context) ([]*prismtoken1.MeterConfigIn, error) {
	file := c.String("meters")
	if (file == "") == (c.String("drn") == "") {
		return nil, console.Usagef("give either --meters or --drn and the meter's other options")
	}
	if file == "" {
		m, err := readMeter(c)
		return []*prismtoken1.MeterConfigIn{m}, err
	}
	p, err := atomicfile.Read(file, maxMeters)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "--meters: %w", err)
	}
	var meters []*prismtoken1.MeterConfigIn
	for i, line := range strings.Split(strings.TrimSpace(string(p)), "\n") {
		m := prismtoken1.NewMeterConfigIn()
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(m); err != nil {
			return nil, errkind.Errorf(errkind.Invalid, "--meters: line %d: %w", i+1, err)
		}
		meters = append(meters, m)
	}
	return meters, nil
}
