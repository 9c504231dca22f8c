package hosting

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
)

// Create makes a VCM from a tenant's request.
func (h *Host) Create(ctx context.Context, by Actor, file []byte, c admit.Choices) (lifecycle.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, creation, err := h.reserve(ctx, by, file, c)
	if err != nil {
		return lifecycle.Record{}, err
	}
	defer v.unlock()
	rec, err := h.complete(ctx, v, creation)
	if err != nil {
		h.auditOutcome(by, "vcm.create", v.uuid, h.stamp(ctx), err)
		// The caller's time may be over; what was begun must not stay.
		h.rollBack(context.WithoutCancel(ctx), v)
		return lifecycle.Record{}, err
	}
	return rec, nil
}

// reserve admits the request and stores a pending record, which counts under
// every limit from then on. The VCM is held.
func (h *Host) reserve(ctx context.Context, by Actor, file []byte, c admit.Choices) (*vcm, admit.Creation, error) {
	t, err := h.now(ctx)
	if err != nil {
		return nil, admit.Creation{}, err
	}
	v, creation, err := h.decide(t, file, c)
	if err != nil {
		return nil, creation, err
	}
	rec := v.record()
	p := rec.Properties
	err = h.audit(ctx, by, "vcm.create", rec.UUID, t.Module, map[string]string{
		"name": p.Name, "address": p.IPAddress, "features": licensing.Features(p.Features).String(),
		"restrict-startup": strconv.FormatBool(p.RestrictStartup), "request-key": p.TenantRequestKey,
	})
	if err == nil {
		v.writing.Lock()
		if err = h.store(ctx, v, rec); err != nil {
			h.auditOutcome(by, "vcm.create", rec.UUID, t.Module, err)
		}
		v.writing.Unlock()
	}
	if err != nil {
		h.rollBack(context.WithoutCancel(ctx), v)
		v.unlock()
		return nil, creation, err
	}
	return v, creation, nil
}

// decide admits the request and takes its place among the VCMs in memory.
func (h *Host) decide(t hsmapi.Time, file []byte, c admit.Choices) (*vcm, admit.Creation, error) {
	h.admission.Lock()
	defer h.admission.Unlock()
	u := h.admitter(t)
	creation, err := u.Create(file, c)
	if err != nil {
		return nil, creation, err
	}
	p := creation.Properties
	var sockets []network.Socket
	if p.IPAddress, sockets, err = h.address(u, place(p)); err != nil {
		return nil, creation, err
	}
	v := newVCM(lifecycle.Record{
		UUID: uuid.NewString(), ESN: h.cfg.Identity.ESN, State: lifecycle.Created, Pending: true,
		Properties: p, RequestID: creation.RequestID, SSHAdminKey: creation.SSHAdminKey, Slot: freeSlot(u.VCMs),
		Created: t.Module.UTC(), Changed: t.Module.UTC(),
	}, 0)
	v.place, v.sockets = place(p), sockets
	v.lock()
	h.mu.Lock()
	h.vcms[v.uuid] = v
	h.mu.Unlock()
	return v, creation, nil
}

// freeSlot returns the lowest number that no VCM has.
func freeSlot(records []lifecycle.Record) int {
	used := make(map[int]bool, len(records))
	for _, r := range records {
		used[r.Slot] = true
	}
	slot := 0
	for used[slot] {
		slot++
	}
	return slot
}

// complete makes the partition and the tenant's file, and shows the VCM.
func (h *Host) complete(ctx context.Context, v *vcm, creation admit.Creation) (lifecycle.Record, error) {
	rec := v.record()
	err := h.cfg.Unit.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error {
		p, err := c.Create(ctx, hsmapi.CreatePartition{UUID: v.uuid, ShareKey: creation.ShareKey})
		rec.ModuleID = p.ModuleID
		return err
	})
	if err != nil {
		return rec, err
	}
	if err := os.MkdirAll(h.dataDir(v.uuid), 0o700); err != nil {
		return rec, errkind.Errorf(errkind.Unavailable, "data folder: %w", err)
	}
	if rec.File, err = h.cfg.File(ctx, rec); err != nil {
		return rec, err
	}
	rec.Pending = false
	v.writing.Lock()
	defer v.writing.Unlock()
	return rec, h.store(ctx, v, rec)
}

// rollBack removes what is there of a VCM that nobody was told of. The record
// says so first: a VCM without its key must never look like one that has it.
func (h *Host) rollBack(ctx context.Context, v *vcm) {
	v.mu.Lock()
	stored := v.rev != 0
	v.mu.Unlock()
	v.writing.Lock()
	stored = stored || v.unsure
	v.writing.Unlock()
	var err error
	if stored {
		_, err = h.update(ctx, v, func(r lifecycle.Record) (lifecycle.Record, bool, error) {
			r.State, r.Pending = lifecycle.Deleting, true
			return r, true, nil
		})
	}
	if err == nil || errkind.Is(err, errkind.NotFound) {
		err = h.erase(ctx, v)
	}
	if err != nil {
		// It is tried again, here or by the next run.
		h.cfg.Log.Warn("creation not rolled back yet", "uuid", v.uuid, "err", err)
	}
}

// erase destroys the partition's key, then the data, then the record.
func (h *Host) erase(ctx context.Context, v *vcm) error {
	err := h.cfg.Unit.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error { return c.Destroy(ctx, v.uuid) })
	if err != nil {
		return err
	}
	if err := os.RemoveAll(h.dataDir(v.uuid)); err != nil {
		return errkind.Errorf(errkind.Unavailable, "data of VCM %s: %w", v.uuid, err)
	}
	if err := h.removeRecord(ctx, v); err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.vcms, v.uuid)
	h.mu.Unlock()
	v.mu.Lock()
	h.letGo(v)
	v.erased = true
	v.mu.Unlock()
	return nil
}

// gone reports whether nothing is left of v.
func (v *vcm) gone() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.erased
}

func (h *Host) removeRecord(ctx context.Context, v *vcm) error {
	v.writing.Lock()
	defer v.writing.Unlock()
	for tries := 1; ; tries++ {
		if err := h.reload(ctx, v); err != nil {
			if errkind.Is(err, errkind.NotFound) {
				return nil
			}
			return err
		}
		v.mu.Lock()
		rev := v.rev
		v.announce()
		v.mu.Unlock()
		if rev == 0 {
			return nil // never stored
		}
		err := h.remove(ctx, v, rev)
		switch {
		case err == nil || !errors.Is(err, registry.ErrConflict):
			return err
		case tries == maxConflicts:
			return errkind.Errorf(errkind.Unavailable, "VCM %s: %w", v.uuid, err)
		}
	}
}

// remove removes the record at rev. v.writing is held.
func (h *Host) remove(ctx context.Context, v *vcm, rev registry.Rev) error {
	ctx, cancel := storing(ctx)
	defer cancel()
	err := h.cfg.VCMs.Remove(ctx, v.uuid, rev)
	v.unsure = v.unsure || err != nil
	return err
}
