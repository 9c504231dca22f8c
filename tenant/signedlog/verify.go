package signedlog

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

const (
	maxLogFile  = 64 << 20
	proofHead   = "Tesserae log proof\n"
	maxLogFiles = 10_000
)

func (t tool) verify() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "verify exported logs, or the proof of one entry, without any service", ArgsUsage: "FILE...",
		Flags: append(append([]cli.Flag{}, t.offline...),
			&cli.BoolFlag{Name: "print", Usage: "print the entries"},
			console.JSONFlag(), console.VerboseFlag(),
		),
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 || c.NArg() > maxLogFiles {
				return console.Usagef("%s needs FILE...; see '%s --help'", c.Command.HelpName, c.Command.HelpName)
			}
			source, err := t.access.Source(c)
			if err != nil {
				return err
			}
			key := func(text []byte) (ed25519.PublicKey, error) {
				line, err := auditlog.Certificate(text)
				if err != nil {
					return nil, err
				}
				return source.key(line)
			}
			return t.verifyFiles(c, key)
		},
	}
}

type keyOf func(text []byte) (ed25519.PublicKey, error)

func (t tool) verifyFiles(c *cli.Context, key keyOf) error {
	var records []auditlog.Record
	var lines []string
	var last *auditlog.Verified
	for _, path := range c.Args().Slice() {
		text, err := t.env.ReadFile(path, maxLogFile)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(text, []byte(proofHead)) {
			record, line, err := verifyProof(text, key)
			if err != nil {
				return console.Failed("verify "+path, err)
			}
			records, lines = append(records, record), append(lines, path+": "+line)
			continue
		}
		k, err := key(text)
		if err != nil {
			return console.Failed("verify "+path, err)
		}
		v, err := auditlog.Verify(text, k)
		if err == nil && last != nil {
			err = v.Follows(*last)
		}
		if err != nil {
			return console.Failed("verify "+path, err)
		}
		last = &v
		records = append(records, v.Records...)
		lines = append(lines, fmt.Sprintf("%s: entries %d to %d of %s: signature and chain good", path, v.First, v.Last, v.Origin))
	}
	return t.printVerified(c, records, lines)
}

func verifyProof(text []byte, key keyOf) (auditlog.Record, string, error) {
	k, err := key(text)
	if err != nil {
		return auditlog.Record{}, "", err
	}
	p, err := auditlog.VerifyProof(text, k)
	if err != nil {
		return auditlog.Record{}, "", err
	}
	return p.Record, fmt.Sprintf("entry %d is in the log %s of %d entries", p.Record.Seq, p.Origin, p.Size), nil
}

type recordJSON struct {
	Seq     uint64            `json:"seq"`
	Time    string            `json:"time"`
	Kind    string            `json:"kind"`
	Actor   string            `json:"actor"`
	Subject string            `json:"subject"`
	Detail  map[string]string `json:"detail,omitempty"`
}

func (t tool) printVerified(c *cli.Context, records []auditlog.Record, lines []string) error {
	out := struct {
		Verified []string     `json:"verified"`
		Records  []recordJSON `json:"records,omitempty"`
	}{Verified: lines}
	if c.Bool("print") {
		for _, r := range records {
			out.Records = append(out.Records, recordJSON{r.Seq, r.Time.UTC().Format(time.RFC3339Nano), r.Kind, r.Actor, r.Subject, r.Detail})
		}
	}
	return t.env.Print(c, out, func(w io.Writer) error {
		if c.Bool("print") {
			for _, r := range records {
				line, err := r.Marshal()
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s\n", line)
			}
		}
		_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
		return err
	})
}
