// Command vendor is the maker's side: it keeps the maker's keys and makes
// warrants for units, licences and transaction licences. A provider never has it;
// it is here for tests, demonstrations and for makers.
package main

import (
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
)

func main() { console.Main(newApp) }

func newApp(env *console.Env) *cli.App {
	return &cli.App{
		Name:  "vendor",
		Usage: "make warrants, licences and transaction licences",
		Commands: []*cli.Command{
			rootCommand(env), warrantCommand(env), licenceCommand(env),
			transactionCommand(env), inspectCommand(env),
		},
	}
}

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "the folder of the maker's keys", Required: true}
}

func outFlag() cli.Flag {
	return &cli.StringFlag{Name: "out", Usage: "the file to write", Required: true}
}
