package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

func runCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "serve until SIGTERM",
		Flags: []cli.Flag{
			stateFlag(), guardFlag(),
			&cli.StringFlag{Name: "socket", Usage: "path of the unix socket", Required: true},
			&cli.BoolFlag{Name: "cts", Usage: "compliance test mode: VCMs fix their random numbers and ignore dates"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "debug, info, warn or error"},
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			var level slog.Level
			if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
				return console.Usagef("--log-level %q; use debug, info, warn or error", c.String("log-level"))
			}
			log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: level}))
			cfg := config(env, c, log)
			cfg.TestMode = c.Bool("cts")
			return run(c, cfg, c.String("socket"))
		},
	}
}

func run(c *cli.Context, cfg device.Config, socket string) (err error) {
	// Before the first secret is in memory.
	if err := harden(); err != nil {
		return err
	}
	if err := tsm.SelfTest(""); err != nil {
		return errkind.Errorf(errkind.Integrity, "the unit does not start: %w; the program or the host is damaged: install it again, or on another host", err)
	}
	cfg.Log.Info("self-tests passed", "count", len(tsm.SelfTests()))
	u, err := device.Open(c.Context, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	l, err := fdrpc.Listen(socket, 0o600)
	if err != nil {
		return errkind.Errorf(errkind.Unavailable, "socket: %w", err)
	}
	id := u.Identity()
	if cfg.TestMode {
		cfg.Log.Warn("CTS test mode: tokens are predictable; never use it for production")
	}
	cfg.Log.Info("unit ready", "esn", id.ESN, "module", id.ModuleID, "firmware", id.FirmwareID, "state", stateOf(id), "socket", socket)
	err = u.Serve(c.Context, l)
	if rmErr := os.Remove(socket); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("socket: %w", rmErr))
	}
	cfg.Log.Info("unit stopped", "esn", id.ESN)
	return err
}
