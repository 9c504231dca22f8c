package hsmadmin

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	tenantcli "github.com/tesserae-hsm/tesserae/tenant/cli"
)

// singleName is the name of the VCM if none is given.
const singleName = "vcm"

func (t tool) singleSetup() *cli.Command {
	return &cli.Command{
		Name: "single-setup", Usage: "create, start and enroll one VCM on an HSM that is enrolled on this host",
		Flags: common(esnFlag(), &cli.StringFlag{Name: "name", Usage: "name of the VCM", Value: singleName}),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			k, err := t.begin(c)
			if err != nil {
				return err
			}
			return failed("set up a single VCM", k.singleSetup(c.String("name")))
		},
	}
}

func (k *call) singleSetup(name string) error {
	u, err := k.one()
	if err != nil {
		return err
	}
	ctx, cancel := k.context()
	defer cancel()
	h, err := platform.Dial(ctx, k.home, u, k.timeout)
	if err != nil {
		return err
	}
	defer h.Close()
	have, err := h.ListVcms(ctx, false)
	if err != nil {
		return err
	}
	if len(have) > 0 {
		return errkind.Errorf(errkind.Refused, "HSM %s already has %d VCM(s); single-setup is for an HSM without", u.ESN, len(have))
	}
	file, err := tenantcli.SingleRequest(k.home, k.env.Clock.Now(), name)
	if err != nil {
		return err
	}
	made, err := h.Create(ctx, file, &orchestrator.CreateChoices{Name: name})
	if err != nil {
		return err
	}
	id := made.Vcm.Uuid
	if _, err := h.Start(ctx, id, nil, int32(k.timeout.Seconds())); err != nil {
		return errkind.Errorf(errkind.Of(err), "VCM %s was created but not started: %w", id, err)
	}
	return k.enrollSingle(ctx, id, made.VcmFile)
}

func (k *call) enrollSingle(ctx context.Context, id string, file []byte) error {
	f, services, err := tenantcli.Enroll(ctx, k.home, file, k.timeout, k.env.Clock)
	if err != nil {
		return errkind.Errorf(errkind.Of(err), "VCM %s was created and started but not enrolled: %w", id, err)
	}
	out := map[string]any{"uuid": f.UUID, "esn": f.ESN, "module_id": f.ModuleID, "address": f.Address, "services": services}
	return k.env.Print(k.c, out, func(w io.Writer) error {
		console.Fields(w, [2]string{"UUID", f.UUID}, [2]string{"ESN", f.ESN}, [2]string{"MODULE ID", f.ModuleID}, [2]string{"IP ADDRESS", f.Address})
		return nil
	})
}
