// Command orchestratord partitions one HSM: it keeps the records of the VCMs,
// starts and supervises their processes, and serves the provider's platform
// services. It holds no key of any tenant.
package main

import (
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
)

func main() {
	launch.ServeForker()
	console.Main(app)
}

func app(env *console.Env) *cli.App {
	return &cli.App{
		Name:     "orchestratord",
		Usage:    "host virtual security modules on one HSM",
		Version:  console.Version(),
		Commands: []*cli.Command{runCommand(env)},
	}
}
