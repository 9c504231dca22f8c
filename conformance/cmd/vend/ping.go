package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func pingCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "ping",
		Usage: "ask the server to echo a text",
		Flags: flagSets(serverFlags(), []cli.Flag{
			&cli.StringFlag{Name: "echo", Value: "Hello, world!", Usage: "the text"},
			&cli.IntFlag{Name: "sleep", Usage: "milliseconds the server waits first"},
		}),
		Action: func(c *cli.Context) error { return runPing(env, c) },
	}
}

func runPing(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	sleep, err := int32Flag(c, "sleep")
	if err != nil {
		return err
	}
	cfg, err := serverConfig(env, c)
	if err != nil {
		return err
	}
	client, err := vending.Dial(c.Context, cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	start := time.Now()
	echo, err := client.API.Ping(c.Context, sleep, c.String("echo"))
	took := time.Since(start)
	if err != nil {
		return vending.Error("ping", err)
	}
	if echo != c.String("echo") {
		return errkind.Errorf(errkind.Integrity, "ping: sent %q, received %q", c.String("echo"), echo)
	}
	answer := struct {
		Echo         string  `json:"echo"`
		Milliseconds float64 `json:"milliseconds"`
	}{echo, float64(took.Microseconds()) / 1000}
	return env.Print(c, answer, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s (%.1f ms)\n", answer.Echo, answer.Milliseconds)
		return err
	})
}
