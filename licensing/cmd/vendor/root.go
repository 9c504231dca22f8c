package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func rootCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "root",
		Usage: "make the maker's root key and the key for transaction licences, once",
		Flags: []cli.Flag{dirFlag()},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			public, err := makeKeys(c.String("dir"))
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "Maker's root %s, public key in %s\n", ssh.FingerprintSHA256(public), filepath.Join(c.String("dir"), rootFile+".pub"))
			return nil
		},
	}
}

// makeKeys writes the root last: a folder with a root is complete.
func makeKeys(dir string) (ssh.PublicKey, error) {
	if _, err := os.Lstat(filepath.Join(dir, rootFile)); err == nil {
		return nil, errkind.Errorf(errkind.Mode, "%s holds a maker's root already; replacing it would orphan every unit", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	transaction, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	transactionPublic, err := ssh.NewPublicKey(&transaction.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := writeKey(dir, transactionFile, transaction, transactionPublic); err != nil {
		return nil, err
	}
	rootPublic, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	public, err := ssh.NewPublicKey(rootPublic)
	if err != nil {
		return nil, err
	}
	return public, writeKey(dir, rootFile, root, public)
}
