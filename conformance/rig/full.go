package rig

import (
	"context"
	"errors"
	"os"
	"strings"
)

// Plan is what Full makes.
type Plan struct {
	Name         string        // of the VCM
	Request      []string      // options of the tenant's request
	Licences     []string      // TYPE=VALUE, applied to the unit
	Orchestrator []string      // further options of the daemon
	Groups       []SupplyGroup // whose vending keys the VCM gets
}

// Full goes from nothing to a VCM that vends: a unit that runs and is enrolled, a
// VCM that its tenant has enrolled, with users and vending keys.
func (r *Rig) Full(ctx context.Context, p Plan) (*VCM, error) {
	v, err := r.Hosted(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return r.Enrol(ctx, v) },
		func() error { return r.Users(ctx, v) },
		func() error { return r.KMC(ctx, p.Groups...) },
		func() error { return r.KeyRequest(ctx) },
		func() error {
			module, err := r.Module()
			if err != nil {
				return err
			}
			return r.KeyLoad(ctx, module)
		},
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Hosted goes as far as the provider does: a VCM that runs and that its tenant
// does not know yet.
func (r *Rig) Hosted(ctx context.Context, p Plan) (*VCM, error) {
	if err := r.Maker(ctx); err != nil {
		return nil, err
	}
	if _, _, err := r.Unit(ctx, p.Orchestrator...); err != nil {
		return nil, err
	}
	if err := r.EnrolProvider(ctx); err != nil {
		return nil, err
	}
	for _, l := range p.Licences {
		kind, value, _ := strings.Cut(l, "=")
		if err := r.Licence(ctx, kind, value); err != nil {
			return nil, err
		}
	}
	request, err := r.Request(ctx, p.Name, p.Request...)
	if err != nil {
		return nil, err
	}
	return r.Create(ctx, request, p.Name)
}

// Module is the module that the tenant's key request names.
func (r *Rig) Module() (string, error) {
	p, err := os.ReadFile(r.Mail("vkloadreq.txt"))
	if err != nil {
		return "", err
	}
	_, rest, found := strings.Cut(string(p), ";SMI")
	module, _, ended := strings.Cut(rest, ";")
	if !found || !ended {
		return "", errors.New("the VKLOADREQ names no module")
	}
	return module, nil
}

// Endpoints are the platform's SSH services and where they listen.
func (r *Rig) Endpoints() (map[string]string, error) {
	u, _, err := r.unit()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, s := range u.Services {
		out[s.Name] = s.Address
	}
	return out, nil
}
