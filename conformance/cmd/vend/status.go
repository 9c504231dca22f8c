package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func statusCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:   "status",
		Usage:  "show the server's state and alerts (getStatus)",
		Flags:  userFlags(),
		Action: func(c *cli.Context) error { return runStatus(env, c) },
	}
}

func runStatus(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	return signedIn(env, c, func(ctx context.Context, client *vending.Client, id string) error {
		nodes, err := client.API.GetStatus(ctx, id, client.Token)
		if err != nil {
			return vending.Error("get status", err)
		}
		return env.Print(c, nodes, func(w io.Writer) error {
			for _, n := range nodes {
				var pairs [][2]string
				for _, key := range slices.Sorted(maps.Keys(n.Info)) {
					pairs = append(pairs, [2]string{key, n.Info[key]})
				}
				console.Fields(w, pairs...)
				for _, a := range n.Alerts {
					if _, err := fmt.Fprintf(w, "ALERT %s: %s\n", a.ECode, a.EMsgEn); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}
