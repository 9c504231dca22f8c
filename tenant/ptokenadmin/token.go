package ptokenadmin

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

// meterFlags describe the meter that a token is for.
func meterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "drn", Usage: "the meter: 11 or 13 digits, or its PAN of 18", Required: true},
		&cli.IntFlag{Name: "ea", Usage: "encryption algorithm, 7 or 11", Value: 11},
		&cli.IntFlag{Name: "tct", Usage: "token carrier type, 1 or 2", Value: 2},
		&cli.IntFlag{Name: "sgc", Usage: "supply group code", Value: -1},
		&cli.IntFlag{Name: "krn", Usage: "key revision number", Value: 1},
		&cli.IntFlag{Name: "ti", Usage: "tariff index", Value: 1},
		&cli.IntFlag{Name: "ken", Usage: "key expiry number", Value: 255},
		&cli.StringFlag{Name: "doe", Usage: "date of expiry of the meter card, YYMM", Value: "0000"},
		&cli.BoolFlag{Name: "no-krn-update", Usage: "no key change because the key revision is old"},
		&cli.BoolFlag{Name: "no-ken-update", Usage: "no key change because the key expiry number is old"},
		&cli.BoolFlag{Name: "allow-3kct", Usage: "three key change tokens may be issued"},
	}
}

func amendmentFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "to-sgc", Usage: "new supply group code", Value: -1},
		&cli.IntFlag{Name: "to-krn", Usage: "new key revision number", Value: -1},
		&cli.IntFlag{Name: "to-ti", Usage: "new tariff index", Value: -1},
	}
}

func messageFlag() cli.Flag {
	return &cli.StringFlag{Name: "message-id", Usage: "identifies the issue for 'ptokenadmin token fetch'; made up if not given"}
}

func timeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.Int64Flag{Name: "token-time", Usage: "Unix time for the token identifier, with the flag EXTERNAL_CLOCK"},
		&cli.Int64Flag{Name: "flags", Usage: "flags as in the TokenApi"},
	}
}

// small reads a flag that travels as a 16-bit number.
func small(c *cli.Context, name string) (int16, error) {
	v := c.Int(name)
	if v < 0 || v > 32767 {
		return 0, console.Usagef("--%s %d is out of range", name, v)
	}
	return int16(v), nil
}

func meterOf(c *cli.Context) (*prismadmin.Meter, error) {
	m := prismadmin.NewMeter()
	m.Drn, m.Doe = c.String("drn"), c.String("doe")
	for name, target := range map[string]*int16{"ea": &m.Ea, "tct": &m.Tct, "krn": &m.Krn, "ti": &m.Ti, "ken": &m.Ken} {
		v, err := small(c, name)
		if err != nil {
			return nil, err
		}
		*target = v
	}
	sgc := c.Int("sgc")
	if sgc < 0 || sgc > 999999 {
		return nil, console.Usagef("%s needs --sgc, a number of at most 6 digits", c.Command.HelpName)
	}
	m.Sgc = int32(sgc)
	m.AllowKrnUpdate, m.AllowKenUpdate, m.Allow3Kct = !c.Bool("no-krn-update"), !c.Bool("no-ken-update"), c.Bool("allow-3kct")
	return m, nil
}

// amendmentOf returns what the meter is to be changed to; nil if nothing is given.
func amendmentOf(c *cli.Context) (*prismadmin.Amendment, error) {
	sgc, krn, ti := c.Int("to-sgc"), c.Int("to-krn"), c.Int("to-ti")
	if sgc < 0 && krn < 0 && ti < 0 {
		return nil, nil
	}
	if sgc < 0 || sgc > 999999 || krn < 1 || krn > 9 || ti < 0 || ti > 99 {
		return nil, console.Usagef("--to-sgc (6 digits), --to-krn (1 to 9) and --to-ti (0 to 99) belong together")
	}
	return &prismadmin.Amendment{ToSgc: int32(sgc), ToKrn: int16(krn), ToTi: int16(ti)}, nil
}

func messageID(c *cli.Context) string {
	if id := c.String("message-id"); id != "" {
		return id
	}
	return uuid.NewString()
}

// issueOf collects a request for a credit or engineering token.
func issueOf(c *cli.Context) (*prismadmin.TokenRequest, error) {
	r := prismadmin.NewTokenRequest()
	r.MessageId, r.Amount, r.TokenTime, r.Flags = messageID(c), c.Float64("amount"), c.Int64("token-time"), c.Int64("flags")
	var err error
	if r.Subclass, err = small(c, "subclass"); err != nil {
		return nil, err
	}
	if r.Meter, err = meterOf(c); err != nil {
		return nil, err
	}
	r.Meter.NewConfig_, err = amendmentOf(c)
	return r, err
}

func (t tool) printTokens(c *cli.Context, message string, tokens []*prismadmin.Token) error {
	out := map[string]any{"message_id": message, "tokens": tokens}
	return t.env.Print(c, out, func(w io.Writer) error {
		for i, k := range tokens {
			if i > 0 {
				fmt.Fprintln(w)
			}
			printToken(w, k)
		}
		_, err := fmt.Fprintf(w, "MESSAGE ID : %s\n", message)
		return err
	})
}

func printToken(w io.Writer, k *prismadmin.Token) {
	pairs := [][2]string{
		{"TOKEN", grouped(k.TokenDec)}, {"DESCRIPTION", k.Description}, {"METER", k.Drn},
		{"CLASS", fmt.Sprintf("%d/%d", k.TokenClass, k.Subclass)},
	}
	if k.Tid != 0 { // key change tokens carry neither
		pairs = append(pairs, [2]string{"AMOUNT", strings.TrimSpace(k.ScaledAmount + " " + k.ScaledUnitName)}, [2]string{"TID", strconv.Itoa(int(k.Tid))})
	}
	pairs = append(pairs, [][2]string{
		{"SGC KRN TI", fmt.Sprintf("%06d %d %02d", k.Sgc, k.Krn, k.Ti)}, {"VK KCV", k.VkKcv}, {"MODULE", k.IdSm},
	}...)
	if a := k.NewConfig_; a != nil {
		pairs = append(pairs, [2]string{"NEW SGC KRN TI KEN", fmt.Sprintf("%06d %d %02d %d", a.ToSgc, a.ToKrn, a.ToTi, a.ToKen)},
			[2]string{"ID RECORD", a.IdRecord})
		if a.Rollover {
			pairs = append(pairs, [2]string{"ROLLOVER", "true"})
		}
	}
	console.Fields(w, pairs...)
}

// grouped prints 20 digits in fives of four, as they are typed into a meter.
func grouped(digits string) string {
	var groups []string
	for ; len(digits) > 4; digits = digits[4:] {
		groups = append(groups, digits[:4])
	}
	return strings.Join(append(groups, digits), " ")
}
