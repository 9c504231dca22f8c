// Command meter is a virtual payment meter: it holds one decoder key in a state
// file, takes twenty digits and answers as a meter does.
//
// A rejected token exits with 3, digits that no keypad would take with 2. Keys
// come from files of one line of hexadecimal digits ("-" is standard input),
// never from the command line.
package main

import (
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

func main() { console.Main(App) }

// App is the command line of meter.
func App(env *console.Env) *cli.App {
	return &cli.App{
		Name:   "meter",
		Usage:  "a virtual STS payment meter",
		Action: console.Group,
		Commands: []*cli.Command{
			initCommand(env),
			enterCommand(env),
			showCommand(env),
			tamperCommand(env),
			keyCommand(env),
		},
	}
}

func stateFlag() cli.Flag {
	return &cli.StringFlag{Name: "state", Required: true, Usage: "the meter's state `FILE`; it holds the decoder key"}
}
