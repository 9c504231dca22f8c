package fakeunit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// hosting is the orchestrator service: it follows the rules that tools depend
// on and no more.
type hosting struct{ *Unit }

func (h *hosting) find(id string) (*VCM, error) {
	v := h.vcms[id]
	if v == nil {
		return nil, errkind.Errorf(errkind.NotFound, "there is no VCM %s", id)
	}
	return v, nil
}

func (h *hosting) Create(_ context.Context, file []byte, choices *orchestrator.CreateChoices) (*orchestrator.Created, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, err := request.Parse(file)
	if err != nil {
		return nil, err
	}
	if r.Kind != request.Create {
		return nil, errkind.Errorf(errkind.Refused, "this is a %s request", r.Kind)
	}
	if err := r.Verify(r.RequestKey, "", time.Now()); err != nil {
		return nil, err
	}
	if len(h.vcms) >= 5 {
		return nil, errkind.Errorf(errkind.Limit, "5 VCMs exist; the licence max-active-vcms is missing")
	}
	p := &orchestrator.Properties{Name: choices.Name, DiskQuota: 16 << 20, IpAddress: "127.0.0.1", TenantRequestKey: request.KeyText(r.RequestKey)}
	p.Features = int64(licensing.STSVending | licensing.STSEA11)
	if f := r.Properties.Features; f != nil {
		p.Features = int64(*f)
	}
	if choices.Features != nil {
		p.Features = *choices.Features
	}
	p.Autostart = pick(choices.Autostart, r.Properties.Autostart)
	p.SerialCardreader = pick(choices.SerialCardreader, r.Properties.SerialCardreader)
	p.RestrictStartup = pick(nil, r.Properties.RestrictStartup)
	if choices.IpAddress != nil {
		p.IpAddress = *choices.IpAddress
	}
	v := newVCM(h.Unit, uuid.NewString(), r, p)
	h.vcms[v.wire.Uuid] = v
	return &orchestrator.Created{Vcm: v.wire, VcmFile: v.file}, nil
}

func pick(choice, wish *bool) bool {
	if choice != nil {
		return *choice
	}
	return wish != nil && *wish
}

func (h *hosting) Start(_ context.Context, id string, file []byte, _ int32) (*orchestrator.Vcm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.find(id)
	if err != nil {
		return nil, err
	}
	if v.wire.Properties.RestrictStartup {
		if err := v.admitStart(file); err != nil {
			return nil, err
		}
	}
	if v.wire.State == "running" {
		return nil, errkind.Errorf(errkind.Mode, "VCM %s is running", id)
	}
	v.start()
	return v.wire, nil
}

func (h *hosting) Stop(_ context.Context, id string, force bool, _ int32) (*orchestrator.Vcm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.find(id)
	if err != nil {
		return nil, err
	}
	if v.wire.State != "running" {
		return nil, errkind.Errorf(errkind.Mode, "VCM %s is %s", id, v.wire.State)
	}
	if v.wire.Properties.Name == "busy" && !force {
		return nil, errkind.Errorf(errkind.Refused, "the tenant's token service is operational; ask the tenant, or use --force")
	}
	v.stop()
	return v.wire, nil
}

func (h *hosting) ListVcms(_ context.Context, active bool) ([]*orchestrator.Vcm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []*orchestrator.Vcm{}
	for _, v := range h.vcms {
		if !active || v.wire.State == "running" {
			out = append(out, v.wire)
		}
	}
	return out, nil
}

func (h *hosting) Show(_ context.Context, id string) (*orchestrator.Vcm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.find(id)
	if err != nil {
		return nil, err
	}
	return v.wire, nil
}

func (h *hosting) Remove(_ context.Context, id string, force bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.find(id)
	if err != nil {
		return err
	}
	if v.wire.State == "running" {
		return errkind.Errorf(errkind.Mode, "VCM %s is running; stop it first", id)
	}
	if v.wire.State == "stopped" && !force {
		return errkind.Errorf(errkind.Refused, "the audit log of VCM %s is not finalised; ask the tenant to export it, or use --force", id)
	}
	delete(h.vcms, id)
	return nil
}

func (h *hosting) Stats(_ context.Context, id string) ([]*orchestrator.VcmStats, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []*orchestrator.VcmStats{}
	for _, v := range h.vcms {
		if id == "" || v.wire.Uuid == id {
			out = append(out, &orchestrator.VcmStats{
				Uuid: v.wire.Uuid, Esn: h.ESN, State: v.wire.State, Sampled: time.Now().UnixMilli(), Memory: 3 << 20, Disk: 64 << 10,
				DiskQuota: 16 << 20, CpuSeconds: 1.25, Requests: 17, Tokens: 4, Connections: 2, UptimeSeconds: 61,
			})
		}
	}
	return out, nil
}

func (h *hosting) SetProperty(_ context.Context, file []byte, id, property, value string) (*orchestrator.Vcm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.find(id)
	if err != nil {
		return nil, err
	}
	if v.wire.State == "running" {
		return nil, errkind.Errorf(errkind.Mode, "VCM %s is running; stop it first", id)
	}
	return v.wire, v.setProperty(file, property, value)
}

func (h *hosting) ListProperties(context.Context) ([]*orchestrator.PropertyInfo, error) {
	return []*orchestrator.PropertyInfo{
		{Name: "autostart", Values: "true, false", Description: "start after a reboot"},
		{Name: "name", Values: "0 to 64 characters", Description: "friendly name"},
	}, nil
}

func (h *hosting) VcmFile(_ context.Context, id string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, err := h.find(id)
	if err != nil {
		return nil, err
	}
	return v.file, nil
}
