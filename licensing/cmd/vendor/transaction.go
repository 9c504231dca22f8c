package main

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func transactionCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "transaction-licence",
		Usage: "make a transaction licence for one security module",
		Flags: []cli.Flag{
			dirFlag(), outFlag(),
			&cli.StringFlag{Name: "module-id", Usage: "the module's 8 digits", Required: true},
			&cli.StringFlag{Name: "nonce", Usage: "the module's present nonce, 16 hexadecimal digits", Required: true},
			&cli.StringFlag{Name: "transactions", Usage: "a number, or 'unlimited'", Required: true},
			&cli.StringFlag{Name: "inhibit-vend", Usage: "no token after this instant, as 2006-01-02T15:04:05Z (default: never)"},
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			l, err := transactionLicence(c)
			if err != nil {
				return err
			}
			key, err := readTransactionKey(c.String("dir"))
			if err != nil {
				return err
			}
			text, err := l.SignedText(key)
			if err != nil {
				return err
			}
			if err := atomicfile.Write(c.String("out"), []byte(text), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(env.Stdout, "Transaction licence for module %s written to %s\n", l.ModuleID, c.String("out"))
			return nil
		},
	}
}

func transactionLicence(c *cli.Context) (keyload.TransactionLicence, error) {
	l := keyload.TransactionLicence{ModuleID: c.String("module-id"), Transactions: keyload.Unlimited}
	if ok, _ := regexp.MatchString(`^[0-9]{8}$`, l.ModuleID); !ok {
		return l, console.Usagef("--module-id %q; a module id has 8 digits", l.ModuleID)
	}
	nonce, err := hex.DecodeString(c.String("nonce"))
	if err != nil || len(nonce) != 8 {
		return l, console.Usagef("--nonce %q; wanted are 16 hexadecimal digits", c.String("nonce"))
	}
	l.Nonce = nonce
	if n := c.String("transactions"); n != "unlimited" {
		count, err := strconv.ParseUint(n, 10, 32)
		if err != nil || uint32(count) == keyload.Unlimited {
			return l, console.Usagef("--transactions %q; wanted is a number up to %d, or 'unlimited'", n, keyload.Unlimited-1)
		}
		l.Transactions = uint32(count)
	}
	if text := c.String("inhibit-vend"); text != "" {
		if l.InhibitVend, err = time.Parse(time.RFC3339, text); err != nil {
			return l, console.Usagef("--inhibit-vend %q; wanted is a date as 2006-01-02T15:04:05Z", text)
		}
	}
	return l, nil
}
