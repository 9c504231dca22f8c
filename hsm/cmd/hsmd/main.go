// Command hsmd is the physical unit as a process. It has no network: it is
// reached over a unix socket by the orchestrator of the same host, and by each
// VCM over a channel that the orchestrator handed over.
package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func main() { console.Main(newApp) }

func newApp(env *console.Env) *cli.App {
	return &cli.App{
		Name:    "hsmd",
		Usage:   "the physical module: root key, clock, partitions, counters",
		Version: console.Version(),
		Commands: []*cli.Command{
			initCommand(env), warrantCommand(env), runCommand(env),
			showCommand(env), tamperCommand(env), factoryCommand(env),
		},
	}
}

func stateFlag() cli.Flag {
	return &cli.StringFlag{Name: "state", Usage: "the unit's state folder", Required: true}
}

func guardFlag() cli.Flag {
	return &cli.StringFlag{Name: "guard", Usage: "the file that stands for tamper memory (default: in the state folder)"}
}

func config(env *console.Env, c *cli.Context, log *slog.Logger) device.Config {
	cfg := device.Config{Dir: c.String("state"), Clock: env.Clock, Log: log}
	if path := c.String("guard"); path != "" {
		cfg.Guard = device.FileGuard(path)
	}
	return cfg
}
