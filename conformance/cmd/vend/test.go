package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func testCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "test",
		Usage: "issue a class 1 meter test token (issueMeterTestToken)",
		Flags: flagSets(userFlags(), []cli.Flag{
			&cli.IntFlag{Name: "subclass", Usage: "0 to 2, or 6 to 15 proprietary"},
			&cli.Int64Flag{Name: "control", Usage: "control field"},
			&cli.IntFlag{Name: "mfrcode", Usage: "manufacturer code"},
		}),
		Action: func(c *cli.Context) error { return runTest(env, c) },
	}
}

func runTest(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	subclass, err := int16Flag(c, "subclass")
	if err != nil {
		return err
	}
	code, err := int16Flag(c, "mfrcode")
	if err != nil {
		return err
	}
	return signedIn(env, c, func(ctx context.Context, client *vending.Client, id string) error {
		token, err := client.API.IssueMeterTestToken(ctx, id, client.Token, subclass, c.Int64("control"), code)
		if err != nil {
			return vending.Error("issue meter test token", err)
		}
		return env.Print(c, token, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s  %s\n", vending.Grouped(token.TokenDec), token.Description)
			return err
		})
	})
}
