package platform

import (
	"context"
	"fmt"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	api "github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// staTables is the table set built into every VCM.
const staTables = "iec-sample"

type setupService struct{ call }

func (s setupService) Info(ctx context.Context) (*api.Info, error) {
	t, err := s.time(ctx)
	if err != nil {
		return nil, err
	}
	id, e := s.p.cfg.Identity, s.p.cfg.Licences.Entitlement()
	mode := "operational"
	if _, factory := s.p.cfg.Clients.Factory(); factory {
		mode = "factory"
	}
	if id.TestMode {
		mode += ", CTS test mode"
	}
	return &api.Info{
		Esn: id.ESN, ModuleId: id.ModuleID, FirmwareId: id.FirmwareID, HardwareId: id.HardwareID, Mode: mode,
		Features: int64(e.Features), MaxCreatableVcms: int32(e.MaxCreated), MaxActiveVcms: int32(e.MaxActive),
		CreatedVcms: int32(len(s.p.host.List(false))), ActiveVcms: int32(len(s.p.host.List(true))),
		ModuleTime: t.Module.Unix(), HostTime: t.Host.Unix(), Network: s.p.cfg.Network.String(),
		StaTables: staTables, Version: s.p.cfg.Version,
	}, nil
}

func (s setupService) ApplyLicence(ctx context.Context, file []byte) (*api.LicenceResult_, error) {
	e, err := s.entry(ctx)
	if err != nil {
		return nil, err
	}
	lic, err := s.p.cfg.Licences.Apply(ctx, file, s.p.cfg.Audit, e)
	if err != nil {
		return nil, err
	}
	out := &api.LicenceResult_{Type: string(lic.Type), Value: lic.Value(), Warnings: []string{}}
	active := len(s.p.host.List(true))
	if most := s.p.cfg.Licences.Entitlement().MaxActive; lic.Type == licensing.MaxActiveVCMs && active > most {
		out.Warnings = append(out.Warnings, fmt.Sprintf(
			"%d VCMs are active and the licence is for %d: they stay active, but none can be started until fewer than %d are", active, most, most))
	}
	return out, nil
}

func (s setupService) SetNetwork(ctx context.Context, n *api.Network) error {
	next := network.Settings{Kind: network.Kind(n.Kind), Address: n.Address, Gateway: n.Gateway}
	subnet, err := network.Open(next, s.p.cfg.Default)
	if err != nil {
		return err
	}
	for _, r := range s.p.host.List(false) {
		if _, err := subnet.Check(r.Properties.IPAddress, nil); err != nil {
			return errkind.Errorf(errkind.Refused, "VCM %s has the address %s, outside %s; delete such VCMs first: %w",
				r.UUID, r.Properties.IPAddress, subnet, err)
		}
	}
	e, err := s.entry(ctx)
	if err != nil {
		return err
	}
	e.Kind = "unit.network"
	e.Detail = map[string]string{"kind": n.Kind, "address": n.Address, "gateway": n.Gateway}
	return s.p.cfg.Ledger.Update(ctx, func(tx ledger.Tx) error {
		if err := s.p.cfg.Audit.in(tx, e); err != nil {
			return err
		}
		stored, err := tx.Networks()
		if err != nil {
			return err
		}
		stored.Next = &next
		return tx.SetNetworks(stored)
	})
}

func (s setupService) Reset(ctx context.Context) error {
	if err := s.p.host.Busy(ctx); err != nil {
		return err
	}
	e, err := s.entry(ctx)
	if err != nil {
		return err
	}
	e.Kind = "unit.reset"
	err = s.p.cfg.Ledger.Update(ctx, func(tx ledger.Tx) error {
		if err := s.p.cfg.Audit.in(tx, e); err != nil {
			return err
		}
		stored, err := tx.Networks()
		if err != nil || stored.Next == nil {
			return err
		}
		return tx.SetNetworks(ledger.Networks{Current: *stored.Next})
	})
	if err != nil {
		return err
	}
	s.p.cfg.Reset()
	return nil
}

func (s setupService) SetTime(ctx context.Context, seconds int64, adjust bool) (*api.Clocks, error) {
	e, err := s.entry(ctx)
	if err != nil {
		return nil, err
	}
	to := time.Unix(seconds, 0).UTC()
	e.Kind = "unit.time"
	e.Detail = map[string]string{"to": to.Format(time.RFC3339), "adjust": fmt.Sprint(adjust)}
	if err := s.p.cfg.Audit.Append(ctx, e); err != nil {
		return nil, err
	}
	var t hsmapi.Time
	err = s.p.cfg.Unit.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error {
		t, err = c.SetTime(ctx, hsmapi.SetTime{Time: to, Adjust: adjust})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.Clocks{ModuleTime: t.Module.Unix(), HostTime: t.Host.Unix()}, nil
}

// FactoryState leaves nothing of the provider's and the tenants'. The order
// makes it resumable: keys first, then what pointed at them, and last the
// client keys without which it could not be asked for again.
func (s setupService) FactoryState(ctx context.Context) error {
	if active := s.p.host.List(true); len(active) > 0 {
		return errkind.Errorf(errkind.Mode, "VCM %s is %s; stop every VCM first", active[0].UUID, active[0].State)
	}
	e, err := s.entry(ctx)
	if err != nil {
		return err
	}
	e.Kind = "unit.factory-state"
	if err := s.p.cfg.Audit.Append(ctx, e); err != nil {
		return err
	}
	for _, r := range s.p.host.List(false) {
		if err := s.p.host.Delete(ctx, s.by, r.UUID, true); err != nil {
			return err
		}
	}
	err = s.p.cfg.Unit.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error { return c.Factory(ctx) })
	if err != nil {
		return err
	}
	if err := s.p.cfg.Ledger.Update(ctx, ledger.Tx.Forget); err != nil {
		return err
	}
	s.p.cfg.Reset()
	return nil
}
