package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

func keyChangeCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:   "keychange",
		Usage:  "issue a key-change set (issueKeyChangeTokens)",
		Flags:  flagSets(userFlags(), meterFlags(), amendmentFlags(true)),
		Action: func(c *cli.Context) error { return runKeyChange(env, c) },
	}
}

func runKeyChange(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	meter, err := readMeter(c)
	if err != nil {
		return err
	}
	to, err := readAmendment(c)
	if err != nil {
		return err
	}
	return list(env, c, "issue key-change tokens", func(ctx context.Context, client *vending.Client, id string) ([]*prismtoken1.Token, error) {
		return client.API.IssueKeyChangeTokens(ctx, id, client.Token, meter, to)
	})
}
