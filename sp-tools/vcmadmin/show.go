package vcmadmin

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
)

func (t tool) show() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "show the properties of a VCM, or of all", ArgsUsage: "[UUID]",
		Flags: common(
			esnFlag("show only VCMs on the HSM with this ESN"),
			&cli.BoolFlag{Name: "isolation", Usage: "show what each isolation control proved at the last start"},
			&cli.StringFlag{Name: "outdir", Usage: "write the VCM's configuration file into this folder again"},
			console.ForceFlag(),
		),
		Action: func(c *cli.Context) error {
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			if !c.Args().Present() && !c.IsSet("outdir") {
				return k.showAll()
			}
			args, err := console.NArgs(c, "UUID")
			if err != nil {
				return err
			}
			return console.Failed("show VCM", k.owner(args[0], k.showOne))
		},
	}
}

func (k *call) showOne(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) error {
	path := ""
	if dir := k.c.String("outdir"); dir != "" {
		file, err := h.VcmFile(ctx, v.Uuid)
		if err != nil {
			return err
		}
		if path, err = k.saveVCMFile(dir, v.Uuid, file, k.c.Bool("force")); err != nil {
			return err
		}
	}
	return k.env.Print(k.c, toJSON(v), func(w io.Writer) error {
		if err := showVCM(w, v, k.c.Bool("isolation")); err != nil {
			return err
		}
		if path != "" {
			console.Fields(w, [2]string{"CONFIG FILE", path})
		}
		return nil
	})
}

func (k *call) showAll() error {
	vcms, answered, missing := k.vcms(false)
	if !answered {
		return console.Failed("show VCMs", missing)
	}
	out := make([]vcmJSON, len(vcms))
	for i, v := range vcms {
		out[i] = toJSON(v)
	}
	err := k.env.Print(k.c, out, func(w io.Writer) error {
		for i, v := range vcms {
			if i > 0 {
				_, _ = fmt.Fprintln(w)
			}
			if err := showVCM(w, v, k.c.Bool("isolation")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return console.Failed("show all VCMs", missing)
}
