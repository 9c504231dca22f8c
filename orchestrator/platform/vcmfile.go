package platform

import (
	"context"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
	"github.com/tesserae-hsm/tesserae/tenant/request"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

// VCMFile makes the configuration file for a VCM's tenant, signed by the unit.
func VCMFile(ctx context.Context, u *unit.Unit, id hsmapi.Identity, r lifecycle.Record) ([]byte, error) {
	f, err := describe(id, r)
	if err != nil {
		return nil, err
	}
	message, err := f.Marshal()
	if err != nil {
		return nil, err
	}
	var signature string
	err = u.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error {
		signature, err = c.Sign(ctx, vcmfile.Namespace, message)
		return err
	})
	if err != nil {
		return nil, err
	}
	return vcmfile.Attach(message, signature)
}

func describe(id hsmapi.Identity, r lifecycle.Record) (vcmfile.File, error) {
	if id.Warrant == "" {
		return vcmfile.File{}, errkind.Errorf(errkind.Mode,
			"the unit has no warrant of its maker, without which no tenant can recognise it; install one with 'hsmd warrant'")
	}
	unitKey, err := warrant.ParseKey(id.UnitKey)
	if err != nil {
		return vcmfile.File{}, errkind.Errorf(errkind.Integrity, "unit key: %w", err)
	}
	p := r.Properties
	requestKey, err := request.ParseKey(p.TenantRequestKey)
	if err != nil {
		return vcmfile.File{}, errkind.Errorf(errkind.Integrity, "request key of VCM %s: %w", r.UUID, err)
	}
	features := licensing.Features(p.Features)
	f := vcmfile.File{
		UUID: r.UUID, ESN: r.ESN, ModuleID: r.ModuleID, RequestID: r.RequestID,
		Created: r.Created.UTC().Truncate(1e9), Address: p.IPAddress,
		Properties: request.Properties{
			Name: &p.Name, Autostart: &p.Autostart, RestrictStartup: &p.RestrictStartup,
			SerialCardreader: &p.SerialCardreader, Features: &features, IPAddress: &p.IPAddress,
			ConductorPort: &p.ConductorPort, RequestKey: requestKey,
		},
		IsolationLevel: r.Level, UnitKey: request.KeyText(unitKey), Warrant: id.Warrant,
	}
	for _, s := range network.Endpoints(network.Place{Address: p.IPAddress, ConductorPort: p.ConductorPort}) {
		f.Endpoints = append(f.Endpoints, vcmfile.Endpoint{Service: s.Service, Address: s.Address})
	}
	for _, c := range r.Controls {
		f.Isolation = append(f.Isolation, vcmfile.Control(c))
	}
	return f, nil
}
