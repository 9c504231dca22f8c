package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

func fetchCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:      "fetch",
		Usage:     "fetch the tokens of an earlier call whose answer was lost (fetchTokenResult)",
		ArgsUsage: "MESSAGE-ID",
		Flags:     userFlags(),
		Action:    func(c *cli.Context) error { return runFetch(env, c) },
	}
}

func runFetch(env *console.Env, c *cli.Context) error {
	args, err := console.NArgs(c, "MESSAGE-ID")
	if err != nil {
		return err
	}
	return list(env, c, "fetch token result "+args[0], func(ctx context.Context, client *vending.Client, id string) ([]*prismtoken1.Token, error) {
		return client.API.FetchTokenResult_(ctx, id, client.Token, args[0])
	})
}
