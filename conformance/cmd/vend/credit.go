package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

func creditCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "credit",
		Usage: "issue a credit token (issueCreditToken)",
		Flags: flagSets(userFlags(), meterFlags(), amendmentFlags(false), timeFlags(), []cli.Flag{
			&cli.IntFlag{Name: "subclass", Usage: "0 electricity, 1 water, 2 gas, 3 time, 4 to 7 the same in currency"},
			&cli.Float64Flag{Name: "amount", Usage: "transferAmount: units of 0.1 kWh, 0.1 kl, 0.1 m3 or 0.1 min, or currency"},
			&cli.StringFlag{Name: "kwh", Usage: "electricity in kWh, instead of --amount"},
		}),
		Action: func(c *cli.Context) error { return runCredit(env, c) },
	}
}

func runCredit(env *console.Env, c *cli.Context) error {
	in, err := readIssuing(c)
	if err != nil {
		return err
	}
	amount, err := creditAmount(c)
	if err != nil {
		return err
	}
	return list(env, c, "issue credit token", func(ctx context.Context, client *vending.Client, id string) ([]*prismtoken1.Token, error) {
		return client.API.IssueCreditToken(ctx, id, client.Token, in.meter, in.subclass, amount, in.tokenTime, in.flags)
	})
}

func creditAmount(c *cli.Context) (float64, error) {
	if c.IsSet("amount") == c.IsSet("kwh") {
		return 0, console.Usagef("give exactly one of --amount and --kwh")
	}
	if c.IsSet("amount") {
		return c.Float64("amount"), nil
	}
	if c.Int("subclass") != 0 {
		return 0, console.Usagef("--kwh is for subclass 0")
	}
	return kWh(c.String("kwh"))
}
