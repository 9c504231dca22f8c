package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func serverFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "address", Required: true, Usage: "`HOST:PORT` of the token service"},
		&cli.StringFlag{Name: "ca", Required: true, Usage: "PEM `FILE` with the server's certificate, or the authority that issued it"},
		console.JSONFlag(),
		console.TimeoutFlag(),
	}
}

// userFlags are for calls that need an access token.
func userFlags() []cli.Flag {
	return append(serverFlags(),
		&cli.StringFlag{Name: "user", Required: true, Usage: "`NAME` of a user with the role ptoken-api"},
		&cli.StringFlag{Name: "password-file", Required: true, Usage: "`FILE` with the password, - for standard input"},
		&cli.StringFlag{Name: "message-id", Usage: "message `ID`, for a later fetch (default: a random one)"},
	)
}

func serverConfig(env *console.Env, c *cli.Context) (vending.Config, error) {
	timeout, err := console.Timeout(c)
	if err != nil {
		return vending.Config{}, err
	}
	trust, err := vending.LoadTrust(c.String("ca"), time.Now)
	if err != nil {
		return vending.Config{}, err
	}
	return vending.Config{Address: c.String("address"), Trust: trust, Timeout: timeout}, nil
}

// signedIn connects, signs in and runs call, which gets the message identifier.
func signedIn(env *console.Env, c *cli.Context, call func(ctx context.Context, client *vending.Client, id string) error) error {
	cfg, err := serverConfig(env, c)
	if err != nil {
		return err
	}
	password, err := env.Secret("", c.String("password-file"), false)
	if err != nil {
		return err
	}
	client, err := vending.Dial(c.Context, cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.SignIn(c.Context, c.String("user"), password); err != nil {
		return err
	}
	id := c.String("message-id")
	if id == "" {
		id = vending.MessageID()
	}
	return call(c.Context, client, id)
}
