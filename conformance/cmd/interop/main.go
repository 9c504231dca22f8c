// Command interop runs real Thrift clients in several languages, and a replay of
// recorded frames, against a live PrismToken server.
//
// Every step is one line of JSON. A language that cannot run on this machine is
// named and fails, unless --languages leaves it out.
//
// With --bin it starts a platform of its own from those binaries, runs besides
// the clients the programs that the guide for vending developers shows, and
// prints one line of a table for each language.
package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/interop"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func main() { console.Main(App) }

// App is the command line of interop.
func App(env *console.Env) *cli.App {
	return &cli.App{
		Name:  "interop",
		Usage: "run vendors' Thrift clients against a PrismToken server",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bin", Usage: "`DIR` with the platform's binaries: start one, instead of --address, --ca, --user and --password-file"},
			&cli.StringFlag{Name: "examples", Value: "docs/examples", Usage: "`DIR` with the guide's programs, for --bin"},
			&cli.StringFlag{Name: "address", Usage: "`HOST:PORT` of the token service"},
			&cli.StringFlag{Name: "ca", Usage: "PEM `FILE` with the server's certificate, or the authority that issued it"},
			&cli.StringFlag{Name: "user", Usage: "`NAME` of a user who may issue credit, key-change and engineering tokens"},
			&cli.StringFlag{Name: "password-file", Usage: "`FILE` with the password"},
			&cli.StringFlag{Name: "languages", Value: strings.Join(interop.Known(), ","), Usage: "comma-separated `LIST`"},
			&cli.StringFlag{Name: "idl", Value: "vcm/prismtoken/idl/prismtoken1-TokenApi.thrift", Usage: "interface definition to generate clients from"},
			&cli.StringFlag{Name: "node-modules", Usage: "`DIR` with the npm package thrift"},
			&cli.StringFlag{Name: "drn11", Value: "00000000000", Usage: "a meter with EA 11"},
			&cli.StringFlag{Name: "drn07", Value: "0100000000008", Usage: "a meter with EA 07"},
			&cli.IntFlag{Name: "sgc", Value: 123456, Usage: "supply group whose key the server holds"},
			&cli.IntFlag{Name: "krn", Value: 1, Usage: "key revision number"},
			&cli.IntFlag{Name: "ti", Value: 1, Usage: "tariff index"},
			&cli.IntFlag{Name: "ken", Value: 255, Usage: "key expiry number of the meters"},
			&cli.IntFlag{Name: "to-sgc", Value: 123456, Usage: "supply group to change to"},
			&cli.IntFlag{Name: "to-krn", Value: 1, Usage: "key revision number to change to"},
			&cli.IntFlag{Name: "to-ti", Value: 2, Usage: "tariff index to change to"},
			&cli.DurationFlag{Name: "language-timeout", Value: 3 * time.Minute, Usage: "bound for one language, compiling included"},
		},
		Action: func(c *cli.Context) error { return runInterop(env, c) },
	}
}

func runInterop(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	bin := c.String("bin")
	for _, name := range []string{"address", "ca", "user", "password-file"} {
		if bin == "" && c.String(name) == "" {
			return console.Usagef("--%s is needed, or --bin; see 'interop --help'", name)
		}
		if bin != "" && c.String(name) != "" {
			return console.Usagef("--%s is not for a platform that --bin starts", name)
		}
	}
	var languages []string
	for _, l := range strings.Split(c.String("languages"), ",") {
		if l = strings.TrimSpace(l); l != "" {
			languages = append(languages, l)
		}
	}
	cfg := interop.Config{
		Address: c.String("address"), CA: c.String("ca"), User: c.String("user"), PasswordFile: c.String("password-file"),
		Languages: languages, IDL: c.String("idl"), NodeModules: c.String("node-modules"),
		Meters: interop.Meters{
			DRN11: c.String("drn11"), DRN07: c.String("drn07"), SGC: c.Int("sgc"), KRN: c.Int("krn"), TI: c.Int("ti"), KEN: c.Int("ken"),
			ToSGC: c.Int("to-sgc"), ToKRN: c.Int("to-krn"), ToTI: c.Int("to-ti"),
		},
		Timeout: c.Duration("language-timeout"), Now: time.Now, Out: env.Stdout,
	}
	if bin != "" {
		return live(c.Context, env, bin, c.String("examples"), cfg)
	}
	return interop.Run(c.Context, cfg)
}
