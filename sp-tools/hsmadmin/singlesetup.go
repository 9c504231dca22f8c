package hsmadmin

import (
	"context"
	"time"

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
		Action: t.with(func(k *call, _ []string) error {
			return console.Failed("set up a single VCM", k.singleSetup(k.c.String("name")))
		}),
	}
}

// margin is how much longer the connection waits than the service was told to.
const margin = 2 * time.Second

func (k *call) singleSetup(name string) error {
	u, err := k.one()
	if err != nil {
		return err
	}
	h, err := platform.Dial(k.c.Context, k.home, u, k.timeout)
	if err != nil {
		return err
	}
	defer h.Close()
	made, err := k.createSingle(h, name)
	if err != nil {
		return err
	}
	id := made.Vcm.Uuid
	ctx, cancel := context.WithTimeout(k.c.Context, k.timeout+margin)
	defer cancel()
	if _, err := h.Start(ctx, id, nil, int32(k.timeout/time.Second)); err != nil {
		return errkind.Errorf(errkind.Of(err), "VCM %s was created but not started: %w", id, err)
	}
	f, services, err := tenantcli.Enroll(k.c.Context, k.home, made.VcmFile, k.timeout, k.env.Clock)
	if err != nil {
		return errkind.Errorf(errkind.Of(err), "VCM %s was created and started but not enrolled: %w", id, err)
	}
	return tenantcli.PrintEnrolled(k.env, k.c, f, services)
}

// createSingle creates the VCM on a unit that has none.
func (k *call) createSingle(h *platform.Hosting, name string) (*orchestrator.Created, error) {
	ctx, cancel := k.context()
	defer cancel()
	have, err := h.ListVcms(ctx, false)
	if err != nil {
		return nil, err
	}
	if len(have) > 0 {
		return nil, errkind.Errorf(errkind.Refused, "HSM %s already has %d VCM(s); single-setup is for an HSM without", h.Unit.ESN, len(have))
	}
	file, err := tenantcli.SingleRequest(k.home, k.env.Clock.Now(), name)
	if err != nil {
		return nil, err
	}
	return h.Create(ctx, file, &orchestrator.CreateChoices{Name: name})
}
