package ptokenadmin

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

type approvalsJSON struct {
	Root       string   `json:"root"`
	RootSHA256 string   `json:"root_sha256"`
	Issuer     string   `json:"list_issuer"`
	Date       string   `json:"list_date,omitempty"`
	Keys       []string `json:"approved_keys"`
}

func (t tool) kmcApprovalRoot() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "pin", Usage: "pin the public key in this `FILE` (PEM, ECDSA P-384)"},
		&cli.BoolFlag{Name: "remove", Usage: "pin none: no KMC key is approved then"},
		console.YesFlag(),
	}
	return command("approval-root", "show or pin the root that says which KMC public keys are genuine", nil, flags, func(c *cli.Context, _ []string) error {
		if c.IsSet("pin") && c.Bool("remove") {
			return console.Usagef("--pin and --remove exclude each other")
		}
		pem := ""
		if c.IsSet("pin") {
			p, err := t.env.ReadFile(c.String("pin"), maxText)
			if err != nil {
				return err
			}
			if pem = strings.TrimSpace(string(p)); pem == "" {
				return console.Usagef("%s is empty", c.String("pin"))
			}
		}
		return t.session(c, "pin the approval root", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			now, err := p.KmcApprovals(ctx)
			if err != nil {
				return err
			}
			if c.IsSet("pin") || c.Bool("remove") {
				if now.RootPem != "" && strings.TrimSpace(now.RootPem) != pem {
					if err := t.env.Confirm(c, fmt.Sprintf("The root %s and its list are given up. Go on?", now.RootSha256)); err != nil {
						return err
					}
				}
				if now, err = p.KmcPinRoot(ctx, pem); err != nil {
					return err
				}
			}
			return t.printApprovals(c, now)
		})
	})
}

func (t tool) printApprovals(c *cli.Context, a *prismadmin.Approvals) error {
	out := approvalsJSON{Root: a.RootPem, RootSHA256: a.RootSha256, Issuer: a.Issuer, Keys: a.Keys}
	if a.Date != 0 {
		out.Date = stamp(a.Date)
	}
	return t.env.Print(c, out, func(w io.Writer) error {
		if out.RootSHA256 == "" {
			_, err := fmt.Fprintln(w, "No approval root is pinned: no KMC key is approved.")
			return err
		}
		pairs := [][2]string{{"APPROVAL ROOT", "SHA-256 " + out.RootSHA256}}
		if out.Issuer == "" {
			pairs = append(pairs, [2]string{"LIST", "none"})
		} else {
			pairs = append(pairs, [2]string{"LIST", "of " + out.Issuer + ", " + out.Date}, [2]string{"APPROVED", strings.Join(out.Keys, ", ")})
		}
		console.Fields(w, pairs...)
		return nil
	})
}
