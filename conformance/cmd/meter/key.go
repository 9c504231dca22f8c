package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func keyCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "derive a meter's decoder key from a test vending key, for 'init --decoder-key-file'",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "output", Required: true, Usage: "new `FILE` for the decoder key"},
		}, derivationFlags(true)...),
		Action: func(c *cli.Context) error { return runKey(env, c) },
	}
}

func runKey(env *console.Env, c *cli.Context) error {
	if _, err := console.NArgs(c); err != nil {
		return err
	}
	d, err := readDerivation(c)
	if err != nil {
		return err
	}
	key, err := d.decoderKey(env, c.String("vending-key-file"))
	if err != nil {
		return err
	}
	path := c.String("output")
	if _, err := os.Lstat(path); err == nil {
		return errkind.Errorf(errkind.Refused, "%s exists; a key file is not overwritten", path)
	}
	if err := atomicfile.Write(path, []byte(strings.ToUpper(hex.EncodeToString(key))+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the decoder key: %w", err)
	}
	_, err = fmt.Fprintf(env.Stdout, "decoder key of %s written to %s\n", d.drn, path)
	return err
}
