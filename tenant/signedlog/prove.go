package signedlog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// tokenDigest is the detail of an entry that tells which token it is about.
const tokenDigest = "tokenSha256"

// tokenDigits is how long a token is.
const tokenDigits = 20

func (t tool) prove() *cli.Command {
	return &cli.Command{
		Name: "prove", Usage: "take the proof of one entry out of exported logs, without any service; 'verify' checks it", ArgsUsage: "FILE...",
		Flags: append(append([]cli.Flag{}, t.offline...),
			&cli.Uint64Flag{Name: "seq", Usage: "the number of the entry"},
			&cli.StringFlag{Name: "token-sha256", Usage: "the entry of the token whose digits have this SHA-256"},
			&cli.StringFlag{Name: "token", Usage: "the entry of the token with these 20 digits"},
			&cli.StringFlag{Name: "out", Usage: "write the proof to this file", Required: true},
			console.ForceFlag(), console.JSONFlag(), console.VerboseFlag(),
		),
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 || c.NArg() > maxLogFiles {
				return console.Usagef("%s needs FILE...; see '%s --help'", c.Command.HelpName, c.Command.HelpName)
			}
			wanted, err := wantedEntry(c)
			if err != nil {
				return err
			}
			source, err := t.access.Source(c)
			if err != nil {
				return err
			}
			return console.Failed("prove the entry", t.proveEntry(c, source, wanted))
		},
	}
}

// wanted chooses the entry.
type wanted struct {
	what    string // for messages
	matches func(auditlog.Record) bool
}

func wantedEntry(c *cli.Context) (wanted, error) {
	given := 0
	for _, name := range []string{"seq", "token-sha256", "token"} {
		if c.IsSet(name) {
			given++
		}
	}
	if given != 1 {
		return wanted{}, console.Usagef("say which entry with one of --seq, --token-sha256 and --token")
	}
	if c.IsSet("seq") {
		seq := c.Uint64("seq")
		return wanted{fmt.Sprintf("entry %d", seq), func(r auditlog.Record) bool { return r.Seq == seq }}, nil
	}
	digest := strings.ToLower(c.String("token-sha256"))
	if c.IsSet("token") {
		digits := strings.ReplaceAll(c.String("token"), " ", "")
		if len(digits) != tokenDigits || strings.Trim(digits, "0123456789") != "" {
			return wanted{}, console.Usagef("--token is not %d digits", tokenDigits)
		}
		sum := sha256.Sum256([]byte(digits))
		digest = hex.EncodeToString(sum[:])
	}
	if p, err := hex.DecodeString(digest); err != nil || len(p) != sha256.Size {
		return wanted{}, console.Usagef("--token-sha256 %q is not %d hexadecimal digits", digest, 2*sha256.Size)
	}
	return wanted{"an entry of that token", func(r auditlog.Record) bool { return r.Detail[tokenDigest] == digest }}, nil
}

// proveEntry looks for the entry in verified exports and writes its proof, after
// a check of that, too.
func (t tool) proveEntry(c *cli.Context, source Source, w wanted) error {
	var proof []byte
	var proved auditlog.Proved
	for _, path := range c.Args().Slice() {
		text, err := t.env.ReadFile(path, maxLogFile)
		if err != nil {
			return err
		}
		p, found, err := extract(text, source, w)
		if err != nil {
			return errkind.Errorf(errkind.Of(err), "%s: %w", path, err)
		}
		if found == nil || (proof != nil && found.Record.Seq == proved.Record.Seq) {
			continue
		}
		if proof != nil {
			return ambiguous(w, proved.Record.Seq, found.Record.Seq)
		}
		proof, proved = p, *found
	}
	if proof == nil {
		return errkind.Errorf(errkind.NotFound, "%s is not in these files", w.what)
	}
	out := c.String("out")
	if err := t.env.WriteFile(out, proof, 0o644, c.Bool("force")); err != nil {
		return err
	}
	return t.env.Print(c, map[string]any{"seq": proved.Record.Seq, "origin": proved.Origin, "size": proved.Size, "file": out}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "The proof that entry %d is in the log %s of %d entries is in %s.\n", proved.Record.Seq, proved.Origin, proved.Size, out)
		return err
	})
}

// extract returns the proof of the wanted entry, nil if it is not in text.
func extract(text []byte, source Source, w wanted) ([]byte, *auditlog.Proved, error) {
	line, err := auditlog.Certificate(text)
	if err != nil {
		return nil, nil, err
	}
	key, err := source.key(line)
	if err != nil {
		return nil, nil, err
	}
	v, err := auditlog.Verify(text, key)
	if err != nil {
		return nil, nil, err
	}
	var at *uint64
	for _, r := range v.Records {
		if !w.matches(r) {
			continue
		}
		if at != nil {
			return nil, nil, ambiguous(w, *at, r.Seq)
		}
		at = &r.Seq
	}
	if at == nil {
		return nil, nil, nil
	}
	proof, err := auditlog.Extract(text, key, *at)
	if err != nil {
		return nil, nil, err
	}
	proved, err := auditlog.VerifyProof(proof, key)
	return proof, &proved, err
}

// ambiguous: key-change tokens of a meter are the same each time.
func ambiguous(w wanted, first, second uint64) error {
	return errkind.Errorf(errkind.Invalid, "%s is not the only one: %d and %d are; say which with --seq", w.what, first, second)
}
