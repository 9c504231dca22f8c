package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

func mseCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "mse",
		Usage: "issue a meter-specific engineering token (issueMseToken)",
		Flags: flagSets(userFlags(), meterFlags(), amendmentFlags(false), timeFlags(), []cli.Flag{
			&cli.IntFlag{Name: "subclass", Required: true, Usage: "0 power limit, 1 clear credit, 2 tariff rate, 5 clear tamper, 6 phase unbalance limit, 7 water factor, 10 extended, 11 to 15 proprietary"},
			&cli.Float64Flag{Name: "amount", Usage: "transferAmount: W, or the 16-bit field"},
		}),
		Action: func(c *cli.Context) error { return runMse(env, c) },
	}
}

func runMse(env *console.Env, c *cli.Context) error {
	in, err := readIssuing(c)
	if err != nil {
		return err
	}
	return list(env, c, "issue engineering token", func(ctx context.Context, client *vending.Client, id string) ([]*prismtoken1.Token, error) {
		return client.API.IssueMseToken(ctx, id, client.Token, in.meter, in.subclass, c.Float64("amount"), in.tokenTime, in.flags)
	})
}
