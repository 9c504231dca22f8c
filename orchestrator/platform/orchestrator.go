package platform

import (
	"context"
	"time"

	api "github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// Limits of a call's patience, as of the tools' --timeout.
const (
	minTimeout = 3
	maxTimeout = 120
)

type orchestratorService struct{ call }

func (s orchestratorService) Create(ctx context.Context, request []byte, c *api.CreateChoices) (*api.Created, error) {
	choices := admit.Choices{Name: c.Name, Autostart: c.Autostart, SerialCardreader: c.SerialCardreader}
	if c.Features != nil {
		f, err := word(*c.Features)
		if err != nil {
			return nil, err
		}
		choices.Features = &f
	}
	if c.IpAddress != nil {
		choices.IPAddress = *c.IpAddress
	}
	rec, err := s.p.host.Create(ctx, s.by, request, choices)
	if err != nil {
		return nil, err
	}
	return &api.Created{Vcm: vcm(rec), VcmFile: rec.File}, nil
}

func word(v int64) (licensing.Features, error) {
	if v < 0 || v > 0xffffffff {
		return 0, errkind.Errorf(errkind.Invalid, "features %d is not a word of 32 bits", v)
	}
	return licensing.Features(v) & licensing.Known(), nil
}

func patience(seconds int32) (time.Duration, error) {
	if seconds < minTimeout || seconds > maxTimeout {
		return 0, errkind.Errorf(errkind.Invalid, "timeout %d is outside %d to %d seconds", seconds, minTimeout, maxTimeout)
	}
	return time.Duration(seconds) * time.Second, nil
}

func (s orchestratorService) Start(ctx context.Context, uuid string, request []byte, timeout int32) (*api.Vcm, error) {
	d, err := patience(timeout)
	if err != nil {
		return nil, err
	}
	return answer(s.p.host.Start(ctx, s.by, uuid, request, d))
}

func (s orchestratorService) Stop(ctx context.Context, uuid string, force bool, timeout int32) (*api.Vcm, error) {
	d, err := patience(timeout)
	if err != nil {
		return nil, err
	}
	return answer(s.p.host.Stop(ctx, s.by, uuid, force, d))
}

func (s orchestratorService) ListVcms(_ context.Context, activeOnly bool) ([]*api.Vcm, error) {
	out := []*api.Vcm{}
	for _, r := range s.p.host.List(activeOnly) {
		out = append(out, vcm(r))
	}
	return out, nil
}

func (s orchestratorService) Show(_ context.Context, uuid string) (*api.Vcm, error) {
	return answer(s.p.host.Show(uuid))
}

func (s orchestratorService) Remove(ctx context.Context, uuid string, force bool) error {
	return s.p.host.Delete(ctx, s.by, uuid, force)
}

func (s orchestratorService) SetProperty(ctx context.Context, request []byte, uuid, property, value string) (*api.Vcm, error) {
	return answer(s.p.host.SetProperty(ctx, s.by, uuid, request, property, value))
}

func (s orchestratorService) ListProperties(context.Context) ([]*api.PropertyInfo, error) {
	var out []*api.PropertyInfo
	for _, p := range admit.Properties() {
		out = append(out, &api.PropertyInfo{Name: p.Name, Values: p.Values, Description: p.Description})
	}
	return out, nil
}

func (s orchestratorService) VcmFile(ctx context.Context, uuid string) ([]byte, error) {
	return s.p.host.File(ctx, uuid)
}

func (s orchestratorService) Stats(ctx context.Context, uuid string) ([]*api.VcmStats, error) {
	all, err := s.p.host.Stats(ctx, uuid)
	if err != nil {
		return nil, err
	}
	out := make([]*api.VcmStats, 0, len(all))
	for _, v := range all {
		out = append(out, &api.VcmStats{
			Uuid: v.Record.UUID, Esn: v.Record.ESN, State: string(v.Record.State), Sampled: v.Sampled.UnixMilli(),
			Memory: v.Memory, Disk: v.DiskUsed, DiskQuota: v.Record.Properties.DiskQuota, CpuSeconds: v.CPUSeconds,
			Requests: v.Requests, Tokens: v.Tokens, Connections: v.Connections, UptimeSeconds: int64(v.Uptime.Seconds()),
		})
	}
	return out, nil
}

func answer(r lifecycle.Record, err error) (*api.Vcm, error) {
	if err != nil {
		return nil, err
	}
	return vcm(r), nil
}

// vcm is a record as it crosses the wire.
func vcm(r lifecycle.Record) *api.Vcm {
	p := r.Properties
	out := &api.Vcm{
		Uuid: r.UUID, Esn: r.ESN, State: string(r.State), Created: r.Created.Unix(), Changed: r.Changed.Unix(),
		Reason: r.Reason, Endpoints: []*api.Endpoint{}, IsolationLevel: r.Level, Isolation: []*api.IsolationControl{},
		ModuleId: r.ModuleID, Restarts: int32(r.Restarts), TestMode: r.TestMode,
		Properties: &api.Properties{
			Name: p.Name, Autostart: p.Autostart, RestrictStartup: p.RestrictStartup, SerialCardreader: p.SerialCardreader,
			Features: int64(p.Features), IpAddress: p.IPAddress, DiskQuota: p.DiskQuota, TenantRequestKey: p.TenantRequestKey,
		},
	}
	for _, s := range network.Endpoints(network.Place{Address: p.IPAddress, ConductorPort: p.ConductorPort}) {
		out.Endpoints = append(out.Endpoints, &api.Endpoint{ServiceName: s.Service, Address: s.Address})
	}
	for _, c := range r.Controls {
		out.Isolation = append(out.Isolation, &api.IsolationControl{Control: c.Control, Wanted: c.Wanted, Got: c.Got, Reason: c.Reason, Proof: c.Proof})
	}
	return out
}
