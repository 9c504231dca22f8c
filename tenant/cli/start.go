package cli

import (
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

func (t tool) start() *cli.Command {
	return &cli.Command{
		Name: "start", Usage: "write an authorisation to start a VCM with restrict-startup",
		Flags: requestFlags(
			uuidFlag("UUID of the VCM to start"),
			configFlag(), makerRootFlag(),
		),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			home, err := access.Home(t.env)
			if err != nil {
				return err
			}
			r, err := t.blank(c, request.Start)
			if err != nil {
				return err
			}
			f, id, err := t.target(c, home)
			if err != nil {
				return err
			}
			r.VCM = id
			if f != nil {
				if r.Share, err = sealShare(home, f, r); err != nil {
					return console.Failed("make the request", err)
				}
			}
			return console.Failed("make the request", t.write(c, home, r))
		},
	}
}

// target finds the VCM that a request is about: by its file, enrolled or given,
// or by its UUID alone, where nothing but the UUID is needed (the file is nil).
func (t tool) target(c *cli.Context, h *enrol.Home) (*vcmfile.File, string, error) {
	id := c.String("uuid")
	if id != "" {
		var err error
		if id, err = console.UUID(id); err != nil {
			return nil, "", err
		}
	}
	if err := t.pin(h, c.String("maker-root")); err != nil {
		return nil, "", err
	}
	if path := c.String("config"); path != "" {
		file, err := t.env.ReadFile(path, maxFile)
		if err != nil {
			return nil, "", err
		}
		f, err := h.VerifyVCM(file)
		if err != nil {
			return nil, "", err
		}
		if id != "" && id != f.UUID {
			return nil, "", console.Usagef("--config is the file of VCM %s, not of %s", f.UUID, id)
		}
		return f, f.UUID, nil
	}
	f, err := h.VCM(id)
	if errkind.Is(err, errkind.NotFound) && id != "" {
		return nil, id, nil
	}
	if err != nil {
		return nil, "", err
	}
	return f, f.UUID, nil
}

// sealShare encrypts this host's share of the VCM to the VCM's unit for the
// period of the request; nil where there is no share.
func sealShare(h *enrol.Home, f *vcmfile.File, r *request.Request) ([]byte, error) {
	id, linked := h.ShareRequest(f.UUID)
	if !linked {
		id = f.RequestID
	}
	secret, err := h.Share(id)
	if errkind.Is(err, errkind.NotFound) {
		if restrict := f.Properties.RestrictStartup; restrict != nil && *restrict {
			return nil, errkind.Errorf(errkind.NotFound, "VCM %s has restrict-startup, and its share is not on this host: %w", f.UUID, err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	root, err := h.MakerRoot()
	if err != nil {
		return nil, err
	}
	w, err := warrant.Read([]byte(f.Warrant), root)
	if err != nil {
		return nil, err
	}
	return tenantshare.Seal(w.EncryptionKey, secret, tenantshare.Use{ESN: f.ESN, UUID: f.UUID, NotBefore: r.NotBefore, NotAfter: r.Expires})
}
