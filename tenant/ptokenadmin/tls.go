package ptokenadmin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// tlsCertificate is "tls certificate" and, in full, "tls certificate export".
func (t tool) tlsCertificate() *cli.Command {
	flags := func() []cli.Flag {
		return []cli.Flag{outFlag("write the certificate to this file (PEM)"), console.ForceFlag()}
	}
	export := command("export", "print the certificate chain for the clients of the token service", nil, flags(), t.export)
	short := command("certificate", export.Usage, nil, flags(), t.export)
	short.Subcommands = []*cli.Command{export}
	return short
}

func (t tool) export(c *cli.Context, _ []string) error {
	return t.session(c, "export the certificate", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
		e, err := p.TokenEndpoint(ctx)
		if err != nil {
			return err
		}
		return t.printEndpoint(c, e)
	})
}

func (t tool) tlsGenerate() *cli.Command {
	return command("generate", "make a new key and self-signed certificate; clients must be given it", nil,
		[]cli.Flag{outFlag("write the certificate to this file (PEM)"), console.ForceFlag(), console.YesFlag()}, func(c *cli.Context, _ []string) error {
			if err := t.env.Confirm(c, "Clients that pinned the present certificate are locked out. Go on?"); err != nil {
				return err
			}
			return t.session(c, "make a certificate", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
				e, err := p.TlsGenerate(ctx)
				if err != nil {
					return err
				}
				return t.printEndpoint(c, e)
			})
		})
}

func (t tool) tlsImport() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "chain", Usage: "file with the certificate chain (PEM)", Required: true},
		&cli.StringFlag{Name: "key", Usage: "file with the private key (PEM)", Required: true},
		console.YesFlag(),
	}
	return command("import", "use a certificate chain and key of your own", nil, flags, func(c *cli.Context, _ []string) error {
		chain, err := t.env.ReadFile(c.String("chain"), maxText)
		if err != nil {
			return err
		}
		key, err := t.env.ReadFile(c.String("key"), maxText)
		if err != nil {
			return err
		}
		if err := t.env.Confirm(c, "Clients that pinned the present certificate are locked out. Go on?"); err != nil {
			return err
		}
		return t.session(c, "import the certificate", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			e, err := p.TlsImport(ctx, string(chain), string(key))
			if err != nil {
				return err
			}
			return t.printEndpoint(c, e)
		})
	})
}

func (t tool) printEndpoint(c *cli.Context, e *prismadmin.TokenEndpoint) error {
	if err := checkFingerprint(e); err != nil {
		return err
	}
	path := c.String("out")
	if path != "" {
		if err := t.env.WriteFile(path, []byte(e.CertificatePem), 0o644, c.Bool("force")); err != nil {
			return err
		}
	}
	out := map[string]string{"address": e.Address, "sha256": e.Sha256, "not_after": stamp(e.NotAfter), "certificate": e.CertificatePem}
	return t.env.Print(c, out, func(w io.Writer) error {
		console.Fields(w, [2]string{"ADDRESS", e.Address}, [2]string{"SHA-256", e.Sha256}, [2]string{"NOT AFTER", stamp(e.NotAfter)})
		if path != "" {
			_, err := fmt.Fprintf(w, "The certificate is written to %s.\n", path)
			return err
		}
		_, err := io.WriteString(w, e.CertificatePem)
		return err
	})
}

// checkFingerprint compares the fingerprint that is shown with the certificate
// that is written.
func checkFingerprint(e *prismadmin.TokenEndpoint) error {
	block, _ := pem.Decode([]byte(e.CertificatePem))
	if block == nil {
		return errkind.Errorf(errkind.Integrity, "the service's certificate is not PEM")
	}
	sum := sha256.Sum256(block.Bytes)
	if shown := strings.ToLower(strings.ReplaceAll(e.Sha256, ":", "")); shown != hex.EncodeToString(sum[:]) {
		return errkind.Errorf(errkind.Integrity, "the certificate's fingerprint is %x, the service says %s", sum, e.Sha256)
	}
	return nil
}
