package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

// factoryFeatures is what a unit leaves the factory with unless told otherwise.
const factoryFeatures = licensing.ForeignTokenOpen | licensing.RemoteShare | licensing.BuiltIn |
	licensing.HSMSpeed2 | licensing.STSVending | licensing.STSCurrencyTokens | licensing.STSEA11

func warrantCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "warrant",
		Usage: "answer a unit's identity request with a warrant",
		Flags: []cli.Flag{
			dirFlag(), outFlag(),
			&cli.StringFlag{Name: "request", Usage: "the identity request that 'hsmd init' printed", Required: true},
			&cli.StringFlag{Name: "features", Usage: "factory features as names with | or a hexadecimal word", Value: factoryFeatures.String()},
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			w, err := makeWarrant(env, c)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "Warrant for unit %s written to %s. Features: %s (%s)\n", w.ESN, c.String("out"), w.Features, w.Features.Hex())
			return nil
		},
	}
}

func makeWarrant(env *console.Env, c *cli.Context) (warrant.Warrant, error) {
	file, err := readFile(c.String("request"))
	if err != nil {
		return warrant.Warrant{}, err
	}
	r, err := warrant.ReadRequest(file)
	if err != nil {
		return warrant.Warrant{}, err
	}
	features, err := licensing.ParseFeatures(c.String("features"))
	if err != nil {
		return warrant.Warrant{}, err
	}
	if s := features & licensing.SpeedBits; s&(s-1) != 0 {
		return warrant.Warrant{}, errkind.Errorf(errkind.Invalid, "--features names more than one speed rating (%s)", s)
	}
	root, err := readRoot(c.String("dir"))
	if err != nil {
		return warrant.Warrant{}, err
	}
	transaction, err := readTransactionKey(c.String("dir"))
	if err != nil {
		return warrant.Warrant{}, err
	}
	public, err := ssh.NewPublicKey(&transaction.PublicKey)
	if err != nil {
		return warrant.Warrant{}, err
	}
	w := warrant.Warrant{
		Unit: r.Unit, Features: features, Issued: env.Clock.Now(),
		TransactionKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))),
	}
	signed, err := warrant.Sign(w, root)
	if err != nil {
		return warrant.Warrant{}, err
	}
	return w, atomicfile.Write(c.String("out"), signed, 0o644)
}
