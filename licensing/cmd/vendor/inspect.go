package main

import (
	"crypto/ecdsa"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

// field is one line of what inspect prints.
type field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type inspection struct {
	Kind string `json:"kind"`
	// Signature is "good" where --dir was given, else "not checked".
	Signature string  `json:"signature"`
	Fields    []field `json:"fields"`
}

func inspectCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show an identity request, a warrant, a licence or a transaction licence",
		ArgsUsage: "FILE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "the folder of the maker's keys (its .pub files are enough), to check the signature"},
			console.JSONFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "FILE")
			if err != nil {
				return err
			}
			file, err := readFile(args[0])
			if err != nil {
				return err
			}
			in, err := inspect(file, c.String("dir"))
			if err != nil {
				return err
			}
			return env.Print(c, in, func(w io.Writer) error {
				rows := [][2]string{{"KIND", in.Kind}, {"SIGNATURE", in.Signature}}
				for _, f := range in.Fields {
					rows = append(rows, [2]string{strings.ToUpper(f.Name), f.Value})
				}
				console.Fields(w, rows...)
				return nil
			})
		},
	}
}

func inspect(file []byte, dir string) (inspection, error) {
	if _, err := keyload.Dearmor(keyload.BlockLicence, string(file)); err == nil {
		return inspectTransaction(string(file), dir)
	}
	message, _, err := armor.Split(file)
	if err != nil {
		return inspection{}, err
	}
	title, _, _ := strings.Cut(string(message), "\n")
	in := inspection{Kind: strings.TrimPrefix(title, "tesserae "), Signature: "not checked"}
	namespace := licensing.Namespace
	switch in.Kind {
	case "identity request":
		_, err = warrant.ReadRequest(file)
		in.Signature, dir = "good, by the unit key", ""
	case "warrant":
		_, err = warrant.Inspect(file)
		namespace = warrant.Namespace
	case "licence":
		_, err = licensing.InspectLicence(file)
	default:
		return inspection{}, errkind.Errorf(errkind.Invalid, "a file that begins with %.60q is not the maker's", title)
	}
	if err != nil {
		return inspection{}, err
	}
	if dir != "" {
		root, err := publicKey(dir, rootFile)
		if err != nil {
			return inspection{}, err
		}
		if _, err := armor.Verify(file, root, namespace); err != nil {
			return inspection{}, err
		}
		in.Signature = "good"
	}
	d, err := armor.Parse(message, title)
	if err != nil {
		return inspection{}, err
	}
	for _, f := range d.Fields {
		in.Fields = append(in.Fields, field(f))
	}
	return in, nil
}

func inspectTransaction(text, dir string) (inspection, error) {
	record, sig, err := keyload.ParseLicenceText(text)
	if err != nil {
		return inspection{}, err
	}
	l, err := keyload.ParseTransactionLicence(record)
	if err != nil {
		return inspection{}, errkind.Errorf(errkind.Invalid, "%w", err)
	}
	count, until := strconv.FormatUint(uint64(l.Transactions), 10), "never"
	if l.Transactions == keyload.Unlimited {
		count = "unlimited"
	}
	if !l.InhibitVend.IsZero() {
		until = l.InhibitVend.Format(time.RFC3339)
	}
	in := inspection{Kind: "transaction licence", Signature: "not checked", Fields: []field{
		{"Module-ID", l.ModuleID}, {"Transactions", count}, {"Inhibit-Vend", until},
	}}
	if dir == "" {
		return in, nil
	}
	key, err := publicKey(dir, transactionFile)
	if err != nil {
		return inspection{}, err
	}
	public, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return inspection{}, errkind.Errorf(errkind.Integrity, "%s.pub is no ECDSA key", transactionFile)
	}
	ec, ok := public.CryptoPublicKey().(*ecdsa.PublicKey)
	if !ok || !keyload.VerifyInstruction(ec, record, sig) {
		return inspection{}, errkind.Errorf(errkind.Integrity, "the transaction licence was not signed by this maker, or was changed afterwards")
	}
	in.Signature = "good"
	return in, nil
}

func publicKey(dir, name string) (ssh.PublicKey, error) {
	text, err := readFile(dir + "/" + name + ".pub")
	if err != nil {
		return nil, err
	}
	return warrant.ParseKey(string(text))
}
