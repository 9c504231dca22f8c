package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

const maxFile = armor.MaxSize

func (t tool) inspectRequest() *cli.Command {
	return &cli.Command{
		Name: "inspect-request", Usage: "show what a request file asks for", ArgsUsage: "REQUEST_FILE",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "verify", Usage: "verify the signature, and the validity by this host's clock"},
			&cli.StringFlag{Name: "key-file", Usage: "public key to verify with; a create request carries its own"},
			console.JSONFlag(), console.VerboseFlag(),
		},
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "REQUEST_FILE")
			if err != nil {
				return err
			}
			file, err := t.env.ReadFile(args[0], maxFile)
			if err != nil {
				return err
			}
			r, err := request.Parse(file)
			if err != nil {
				return err
			}
			verdict := ""
			if c.Bool("verify") || c.IsSet("key-file") {
				if verdict, err = t.verify(c, r); err != nil {
					return err
				}
			}
			return t.printRequest(c, r, verdict)
		},
	}
}

func (t tool) verify(c *cli.Context, r *request.Request) (string, error) {
	key := r.RequestKey
	if path := c.String("key-file"); path != "" {
		text, err := t.env.ReadFile(path, maxFile)
		if err != nil {
			return "", err
		}
		if key, err = request.ParseKey(strings.TrimSpace(string(text))); err != nil {
			return "", err
		}
	}
	if key == nil {
		return "", console.Usagef("a %s request does not carry its key: give the tenant's with --key-file (vcmadmin show prints it as K_TENANT_REQ)", r.Kind)
	}
	now := t.env.Clock.Now()
	if err := r.Verify(key, r.VCM, now); err != nil {
		if errkind.Is(err, errkind.Refused) {
			return "", errkind.Errorf(errkind.Refused, "%w by this host's clock", err)
		}
		return "", err
	}
	return fmt.Sprintf("good, by %s, valid at %s by this host's clock", ssh.FingerprintSHA256(key), now.UTC().Format(time.RFC3339)), nil
}

func (t tool) printRequest(c *cli.Context, r *request.Request, verdict string) error {
	signer, err := r.SignerKey()
	if err != nil {
		return err
	}
	props := map[string]string{}
	pairs := [][2]string{
		{"KIND", string(r.Kind)}, {"REQUEST ID", r.ID}, {"CREATED", r.Created.Format(time.RFC3339)},
		{"NOT BEFORE", r.NotBefore.Format(time.RFC3339)}, {"EXPIRES", r.Expires.Format(time.RFC3339)},
	}
	if r.VCM != "" {
		pairs = append(pairs, [2]string{"VCM", r.VCM})
	}
	if r.Kind == request.Create {
		pairs = append(pairs, [2]string{"SSHADMIN KEY", request.KeyText(r.SSHAdminKey)}, [2]string{"REQUEST KEY", request.KeyText(r.RequestKey)})
	}
	for _, name := range r.Properties.Names() {
		value, _ := r.Properties.Value(name)
		props[name] = value
		if name == request.PropertyFeatures {
			value = fmt.Sprintf("%s (%s)", licensing.Features(*r.Properties.Features), value)
		}
		pairs = append(pairs, [2]string{"PROPERTY " + name, value})
	}
	if r.ShareKey != "" {
		pairs = append(pairs, [2]string{"SHARE KEY", r.ShareKey})
	}
	if r.Share != nil {
		pairs = append(pairs, [2]string{"START SHARE", fmt.Sprintf("%d bytes, sealed to the HSM", len(r.Share))})
	}
	state := verdict
	if state == "" {
		state = "NOT VERIFIED (see --verify)"
	}
	pairs = append(pairs, [2]string{"SIGNED BY", ssh.FingerprintSHA256(signer)}, [2]string{"SIGNATURE", state})
	out := map[string]any{
		"kind": r.Kind, "request_id": r.ID, "created": r.Created, "not_before": r.NotBefore, "expires": r.Expires, "vcm": r.VCM,
		"properties": props, "signed_by": ssh.FingerprintSHA256(signer), "verified": verdict != "", "carries_share": r.Share != nil,
	}
	return t.env.Print(c, out, func(w io.Writer) error {
		console.Fields(w, pairs...)
		return nil
	})
}
