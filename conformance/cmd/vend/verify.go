package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// verified is the validation result of a good token.
const verified = "EVerify.Ok"

func verifyCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "ask the server what a token is (verifyToken); a bad token exits with 3",
		ArgsUsage: "TOKEN",
		Flags:     flagSets(userFlags(), meterFlags()),
		Action:    func(c *cli.Context) error { return runVerify(env, c) },
	}
}

func runVerify(env *console.Env, c *cli.Context) error {
	args, err := console.NArgs(c, "TOKEN")
	if err != nil {
		return err
	}
	digits, err := meter.Digits(args[0])
	if err != nil {
		return err
	}
	config, err := readMeter(c)
	if err != nil {
		return err
	}
	return signedIn(env, c, func(ctx context.Context, client *vending.Client, id string) error {
		r, err := client.API.VerifyToken(ctx, id, client.Token, config, digits)
		if err != nil {
			return vending.Error("verify token", err)
		}
		err = env.Print(c, r, func(w io.Writer) error {
			text := r.ValidationResult_
			switch {
			case r.Token != nil:
				text += "  " + vending.String(r.Token)
			case r.MeterTestToken != nil:
				text += "  " + r.MeterTestToken.Description
			}
			_, err := fmt.Fprintln(w, text)
			return err
		})
		if err == nil && r.ValidationResult_ != verified {
			return errkind.Errorf(errkind.Refused, "the token is not valid: %s", r.ValidationResult_)
		}
		return err
	})
}
