package vcmadmin

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

func (t tool) create() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "create a VCM for a tenant's request", ArgsUsage: "NAME",
		Flags: common(
			&cli.StringFlag{Name: "request", Usage: "file with the signed tenant request", Required: true},
			esnFlag("ESN of the HSM on which to create the VCM"),
			&cli.StringFlag{Name: "features", Usage: "features of the VCM: names separated by |, or a 32-bit hexadecimal word"},
			&cli.BoolFlag{Name: "serial-cardreader", Usage: "the VCM has access to the HSM's card reader"},
			&cli.BoolFlag{Name: "autostart", Usage: "the VCM starts by itself after a reboot of the HSM"},
			&cli.StringFlag{Name: "ip-address", Usage: "IP address of the VCM"},
			&cli.StringFlag{Name: "outdir", Usage: "folder for the VCM's configuration file", Value: "."},
		),
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "NAME")
			if err != nil {
				return err
			}
			return t.runCreate(c, args[0])
		},
	}
}

func (t tool) runCreate(c *cli.Context, name string) error {
	k, err := t.begin(c)
	if err != nil {
		return err
	}
	choices, err := chosen(c, name)
	if err != nil {
		return err
	}
	file, err := t.readRequest(c.String("request"))
	if err != nil {
		return err
	}
	if _, err := request.Parse(file); err != nil { // the unit verifies; this saves the way
		return console.Failed("create VCM", err)
	}
	outdir := c.String("outdir")
	if fi, err := os.Stat(outdir); err != nil || !fi.IsDir() {
		return errkind.Errorf(errkind.NotFound, "--outdir %s is no folder", outdir)
	}
	unit, err := platform.One(k.home, c.String("esn"))
	if err != nil {
		return err
	}
	return k.on(unit, func(ctx context.Context, h *platform.Hosting) error {
		made, err := h.Create(ctx, file, choices)
		if err != nil {
			return console.Failed("create VCM", err)
		}
		path, err := t.saveVCMFile(outdir, made.Vcm.Uuid, made.VcmFile, false)
		if err != nil {
			return errkind.Errorf(errkind.Of(err), "VCM %s was created, but its configuration file was not written: %w; 'vcmadmin show --outdir DIR %s' writes it again",
				made.Vcm.Uuid, err, made.Vcm.Uuid)
		}
		if err := k.warnOfOthers(ctx, h, made.Vcm); err != nil {
			return err
		}
		out := struct {
			vcmJSON
			Config string `json:"config"`
		}{toJSON(made.Vcm), path}
		return t.env.Print(c, out, func(w io.Writer) error {
			console.Fields(w, [2]string{"UUID", made.Vcm.Uuid}, [2]string{"IP ADDRESS", made.Vcm.Properties.IpAddress}, [2]string{"CONFIG FILE", path})
			_, err := fmt.Fprintln(w, "Send the configuration file to the tenant.")
			return err
		})
	})
}

// warnOfOthers says that the tenant has VCMs on the unit besides this one: he can
// use one of them at a time.
func (k *call) warnOfOthers(ctx context.Context, h *platform.Hosting, made *orchestrator.Vcm) error {
	all, err := h.ListVcms(ctx, false)
	if err != nil {
		return err
	}
	for _, v := range all {
		if v.Uuid != made.Uuid && v.Properties.TenantRequestKey == made.Properties.TenantRequestKey {
			fmt.Fprintf(k.env.Stderr, "WARNING: the tenant has VCM %s (%s) on this HSM already, and can enroll one at a time\n", v.Uuid, orElse(v.Properties.Name, "no name"))
		}
	}
	return nil
}

func chosen(c *cli.Context, name string) (*orchestrator.CreateChoices, error) {
	if err := request.CheckName(name); err != nil {
		return nil, err
	}
	choices := &orchestrator.CreateChoices{Name: name}
	if c.IsSet("autostart") {
		v := c.Bool("autostart")
		choices.Autostart = &v
	}
	if c.IsSet("serial-cardreader") {
		v := c.Bool("serial-cardreader")
		choices.SerialCardreader = &v
	}
	if c.IsSet("features") {
		f, err := licensing.ParseFeatures(c.String("features"))
		if err != nil {
			return nil, err
		}
		word := int64(f)
		choices.Features = &word
	}
	if c.IsSet("ip-address") {
		canonical, err := request.CanonicalValue(request.PropertyIPAddress, c.String("ip-address"))
		if err != nil {
			return nil, err
		}
		choices.IpAddress = &canonical
	}
	return choices, nil
}

func (t tool) saveVCMFile(outdir, id string, file []byte, force bool) (string, error) {
	path := filepath.Join(outdir, id+".vcm")
	return path, t.env.WriteFile(path, file, 0o644, force)
}
