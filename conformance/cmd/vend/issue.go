package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// timeFlags choose the token's time.
func timeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "time", Usage: "issue `TIME` (RFC 3339) instead of the server's clock; sets EXTERNAL_CLOCK"},
		&cli.BoolFlag{Name: "reserved", Usage: "take the reserved minute 00:01; sets SPECIAL_RESERVED"},
		&cli.Int64Flag{Name: "token-time", Usage: "raw tokenTime, with --flags"},
		&cli.Int64Flag{Name: "flags", Usage: "raw flags, instead of --time and --reserved"},
	}
}

func readTime(c *cli.Context) (tokenTime, flags int64, err error) {
	if c.IsSet("flags") || c.IsSet("token-time") {
		if c.IsSet("time") || c.IsSet("reserved") {
			return 0, 0, console.Usagef("--flags and --token-time exclude --time and --reserved")
		}
		return c.Int64("token-time"), c.Int64("flags"), nil
	}
	if text := c.String("time"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return 0, 0, console.Usagef("--time: %s", err)
		}
		tokenTime, flags = at.Unix(), int64(prismtoken1.TokenIssueFlags_EXTERNAL_CLOCK)
	}
	if c.Bool("reserved") {
		flags |= int64(prismtoken1.TokenIssueFlags_SPECIAL_RESERVED)
	}
	return tokenTime, flags, nil
}

// issuing is what a credit and a management token have in common.
type issuing struct {
	meter            *prismtoken1.MeterConfigIn
	subclass         int16
	tokenTime, flags int64
}

func readIssuing(c *cli.Context) (issuing, error) {
	if _, err := console.NArgs(c); err != nil {
		return issuing{}, err
	}
	var in issuing
	var err error
	if in.meter, err = readMeter(c); err != nil {
		return in, err
	}
	if in.meter.NewConfig_, err = readAmendment(c); err != nil {
		return in, err
	}
	if in.subclass, err = int16Flag(c, "subclass"); err != nil {
		return in, err
	}
	in.tokenTime, in.flags, err = readTime(c)
	return in, err
}

func flagSets(sets ...[]cli.Flag) []cli.Flag {
	var all []cli.Flag
	for _, s := range sets {
		all = append(all, s...)
	}
	return all
}

// printTokens writes what one call returned; as JSON, a list of the interface's
// Token.
func printTokens(env *console.Env, c *cli.Context, tokens []*prismtoken1.Token) error {
	return env.Print(c, tokens, func(w io.Writer) error {
		for _, t := range tokens {
			if _, err := fmt.Fprintln(w, vending.String(t)); err != nil {
				return err
			}
		}
		return nil
	})
}

// list runs a call that returns tokens and prints them.
func list(env *console.Env, c *cli.Context, what string, call func(ctx context.Context, client *vending.Client, id string) ([]*prismtoken1.Token, error)) error {
	return signedIn(env, c, func(ctx context.Context, client *vending.Client, id string) error {
		tokens, err := call(ctx, client, id)
		if err != nil {
			return vending.Error(what+" (message "+id+")", err)
		}
		return printTokens(env, c, tokens)
	})
}
