package ptokenadmin

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) status() *cli.Command {
	return command("status", "show the state of the token service and its alerts", nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "get the status", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			s, err := p.Status(ctx)
			if err != nil {
				return err
			}
			return t.printStatus(c, s)
		})
	})
}

func (t tool) smStatus() *cli.Command {
	return command("status", "show the state of the security module", nil, nil, func(c *cli.Context, _ []string) error {
		return t.session(c, "get the module's status", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			s, err := p.SmStatus(ctx)
			if err != nil {
				return err
			}
			return t.printStatus(c, s)
		})
	})
}

func (t tool) smPublicKey() *cli.Command {
	return command("public-key", "print the module's public key record for a KMC", nil,
		[]cli.Flag{outFlag("write the record to this file"), console.ForceFlag()}, func(c *cli.Context, _ []string) error {
			return t.session(c, "get the module's public key", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
				text, err := p.SmPublicKey(ctx)
				if err != nil {
					return err
				}
				return t.text(c, "public_key", text)
			})
		})
}

func (t tool) printStatus(c *cli.Context, s *prismadmin.Status) error {
	out := struct {
		Info   map[string]string `json:"info"`
		Alerts []string          `json:"alerts"`
	}{s.Info, append([]string{}, s.Alerts...)}
	return t.env.Print(c, out, func(w io.Writer) error {
		var pairs [][2]string
		for _, name := range slices.Sorted(maps.Keys(s.Info)) {
			pairs = append(pairs, [2]string{name, s.Info[name]})
		}
		console.Fields(w, pairs...)
		for _, a := range s.Alerts {
			if _, err := fmt.Fprintf(w, "ALERT %s\n", a); err != nil {
				return err
			}
		}
		return nil
	})
}

func outFlag(usage string) cli.Flag { return &cli.StringFlag{Name: "out", Usage: usage} }

// text prints a text that is an answer, or writes it to --out.
func (t tool) text(c *cli.Context, name, text string) error {
	if path := c.String("out"); path != "" {
		if err := t.env.WriteFile(path, []byte(text), 0o644, c.Bool("force")); err != nil {
			return err
		}
		return t.env.Print(c, map[string]string{name: text, "file": path}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "Written to %s.\n", path)
			return err
		})
	}
	return t.env.Print(c, map[string]string{name: text}, func(w io.Writer) error {
		if len(text) > 0 && text[len(text)-1] != '\n' {
			text += "\n"
		}
		_, err := io.WriteString(w, text)
		return err
	})
}
