package hosting

import (
	"context"
	"fmt"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

// List returns the records in the order of their creation.
func (h *Host) List(activeOnly bool) []lifecycle.Record {
	out := []lifecycle.Record{}
	for _, v := range h.all() {
		rec := v.record()
		if rec.Pending || activeOnly && !rec.State.Active() {
			continue
		}
		out = append(out, rec)
	}
	return out
}

// Show returns one record.
func (h *Host) Show(uuid string) (lifecycle.Record, error) {
	v, err := h.find(uuid)
	if err != nil {
		return lifecycle.Record{}, err
	}
	return v.record(), nil
}

// File returns the VCM's configuration file as it is now: with the isolation of
// the last start, signed again.
func (h *Host) File(ctx context.Context, uuid string) ([]byte, error) {
	rec, err := h.Show(uuid)
	if err != nil {
		return nil, err
	}
	return h.cfg.File(ctx, rec)
}

// Busy names a VCM whose tenant's service is operational, if there is one.
func (h *Host) Busy(ctx context.Context) error {
	for _, v := range h.all() {
		if _, err := h.idle(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// Delete deletes a VCM for ever: first its key, then everything else.
func (h *Host) Delete(ctx context.Context, by Actor, uuid string, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, err := h.hold(ctx, uuid)
	if err != nil {
		return err
	}
	defer v.unlock()
	if err := admit.Delete(v.record(), force); err != nil {
		return err
	}
	at := h.stamp(ctx)
	if err := h.audit(ctx, by, "vcm.delete", uuid, at, map[string]string{"force": fmt.Sprint(force)}); err != nil {
		return err
	}
	// No record is what a deletion leaves whose answer was lost.
	if _, err := h.apply(ctx, v, lifecycle.Delete, ""); err != nil && !errkind.Is(err, errkind.NotFound) {
		h.auditOutcome(by, "vcm.delete", uuid, at, err)
		return err
	}
	// No way back: what fails now is done again by the next delete or run.
	ctx, end := lasting(ctx)
	defer end()
	if err := h.erase(ctx, v); err != nil {
		h.auditOutcome(by, "vcm.delete", uuid, at, err)
		return err
	}
	return nil
}

// SetProperty changes one property to the value of a tenant's request.
func (h *Host) SetProperty(ctx context.Context, by Actor, uuid string, file []byte, name, value string) (lifecycle.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, err := h.hold(ctx, uuid)
	if err != nil {
		return lifecycle.Record{}, err
	}
	defer v.unlock()
	t, err := h.now(ctx)
	if err != nil {
		return lifecycle.Record{}, err
	}
	h.admission.Lock() // until it is stored: rare enough
	defer h.admission.Unlock()
	rec := v.record()
	change, err := h.admitter(t).Property(rec, file, name, value)
	if err != nil {
		return rec, err
	}
	from, to := place(rec.Properties), place(change.Properties)
	if from != to {
		if err := canMove(v, to); err != nil {
			return rec, err
		}
	}
	err = h.audit(ctx, by, "vcm.property", uuid, t.Module, map[string]string{"property": name, "value": value})
	next := rec
	if err == nil {
		next, err = h.change(ctx, v, change)
		h.auditOutcome(by, "vcm.property", uuid, t.Module, err)
	}
	switch {
	case from == to:
	case err == nil:
		h.keep(v)
	case from.Address != to.Address:
		h.release(to.Address)
	}
	return next, err
}

// change puts an admitted change into effect. The key's protection comes first:
// whichever of two states a crash leaves, the same request leads on from it.
func (h *Host) change(ctx context.Context, v *vcm, c admit.Change) (lifecycle.Record, error) {
	if c.Protect {
		err := h.cfg.Unit.Do(ctx, func(ctx context.Context, cl *hsmapi.Client) error {
			_, err := cl.Protect(ctx, hsmapi.Protect{UUID: v.uuid, ShareKey: c.ShareKey, Share: c.Share})
			return err
		})
		if err != nil {
			return v.record(), err
		}
	}
	at := h.stamp(ctx)
	return h.update(ctx, v, func(r lifecycle.Record) (lifecycle.Record, bool, error) {
		r.Properties, r.Changed = c.Properties, at
		file, err := h.cfg.File(ctx, r)
		if err != nil {
			return r, false, err
		}
		r.File = file
		return r, true, nil
	})
}
