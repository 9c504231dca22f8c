package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func rootCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:        "root",
		Usage:       "the approval root, which says which KMC public keys are genuine",
		Subcommands: []*cli.Command{rootInitCommand(env), rootApproveCommand(env)},
	}
}

func rootInitCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make an approval root's key pair (ECDSA P-384)",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Required: true, Usage: "new `FILE` for the private key"}, outFlag("the public key (PEM)"),
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			path := c.String("key")
			if _, err := os.Lstat(path); err == nil {
				return errkind.Errorf(errkind.Refused, "%s exists; a key file is not overwritten", path)
			}
			key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				return err
			}
			private, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				return err
			}
			public, err := keyload.FormatRoot(&key.PublicKey)
			if err != nil {
				return err
			}
			if err := atomicfile.Write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
				return fmt.Errorf("write the root key: %w", err)
			}
			fmt.Fprintf(env.Stderr, "approval root, SHA-256 %s\n", keyload.RootFingerprint(&key.PublicKey))
			return output(env, c, public)
		},
	}
}

func rootApproveCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:      "approve",
		Usage:     "sign a list of approved KMC public keys",
		ArgsUsage: "PUBKEY-FILE...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Required: true, Usage: "`FILE` with the root's private key"},
			&cli.StringFlag{Name: "issuer", Value: "TEST-ROOT", Usage: "`NAME` of the root"},
			outFlag("the list"),
		},
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return console.Usagef("root approve needs at least one file with a KMC public key")
			}
			root, err := readRoot(c.String("key"))
			if err != nil {
				return err
			}
			if !keyload.IsIdent(c.String("issuer")) {
				return console.Usagef("--issuer %q is not an identifier", c.String("issuer"))
			}
			list := keyload.Approvals{Issuer: c.String("issuer"), Date: env.Clock.Now().UTC().Format(keyload.DateTime)}
			for _, path := range c.Args().Slice() {
				text, err := readInput(path)
				if err != nil {
					return err
				}
				key, err := keyload.ParseKMCPublicKeyText(text)
				if err != nil {
					return errkind.Errorf(errkind.Of(err), "%s: %w", path, err)
				}
				list.Approve(key)
			}
			text, err := list.SignedText(root)
			if err != nil {
				return err
			}
			return output(env, c, text)
		},
	}
}

func readRoot(path string) (*ecdsa.PrivateKey, error) {
	text, err := readInput(path)
	if err != nil {
		return nil, err
	}
	bad := errkind.Errorf(errkind.Invalid, "%s is not a private key made by 'kmc root init'", path)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, bad
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, bad
	}
	root, ok := key.(*ecdsa.PrivateKey)
	if !ok || root.Curve != elliptic.P384() {
		return nil, bad
	}
	return root, nil
}
