// Command vend is a small vending system: it speaks PrismToken's Thrift API over
// TLS and always checks the server's certificate against --ca.
//
// The password comes from a file or standard input ("-"), never from the command
// line. Exit codes are those of every tool: 3 refused or not signed in, 4 not
// found, 5 server not reachable or answer lost, 7 certificate not trusted.
package main

import (
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

func main() { console.Main(App) }

// App is the command line of vend.
func App(env *console.Env) *cli.App {
	return &cli.App{
		Name:   "vend",
		Usage:  "a vending client for PrismToken",
		Action: console.Group,
		Commands: []*cli.Command{
			pingCommand(env),
			creditCommand(env),
			mseCommand(env),
			keyChangeCommand(env),
			testCommand(env),
			verifyCommand(env),
			statusCommand(env),
			fetchCommand(env),
			loadCommand(env),
		},
	}
}
