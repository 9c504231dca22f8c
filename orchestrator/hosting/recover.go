package hosting

import (
	"cmp"
	"context"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

// recover reads the records and lets each VCM go on from where it was.
func (h *Host) recover(ctx context.Context, rebooted bool) error {
	entries, err := h.cfg.VCMs.List(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		h.vcms[e.Record.UUID] = newVCM(e.Record, e.Rev)
	}
	h.adopt(ctx, rebooted)
	failed := make(chan error, len(entries))
	h.each(func(v *vcm) {
		if err := persist(ctx, func() error { return h.resume(ctx, v, rebooted) }); err != nil {
			failed <- err
		}
	})
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	h.each(h.keep)
	for _, v := range h.all() {
		if v.adopted != nil {
			h.supervise(v)
		}
	}
	for _, v := range h.all() { // in the order of creation, as far as the licence goes
		if v.record().State == lifecycle.Starting {
			h.supervise(v)
		}
	}
	if rebooted {
		h.autostart(ctx)
	}
	return nil
}

// persist repeats what is unavailable for a while: a store or a unit that comes
// up together with us is no reason to give up.
func persist(ctx context.Context, fn func() error) error {
	const patience, pause = 20 * time.Second, 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := fn()
		if !errkind.Is(err, errkind.Unavailable) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// resume moves one record on. Processes are started afterwards.
func (h *Host) resume(ctx context.Context, v *vcm, rebooted bool) error {
	rec := v.record()
	switch {
	case rec.Pending:
		return h.erase(ctx, v) // nobody was told of it
	case rec.State == lifecycle.Deleting:
		return h.erase(ctx, v)
	case v.adopted != nil: // it is where it was
		return nil
	}
	event, reason := lifecycle.Recover, rec.Reason
	switch {
	case rebooted:
		event, reason = lifecycle.Reboot, "the unit was shut down"
	case rec.Properties.RestrictStartup && rec.State.Active():
		// Its key needs the tenant's share, which is kept nowhere.
		event, reason = lifecycle.Reboot, "the orchestrator was restarted; a start request of the tenant is needed again"
	case rec.State == lifecycle.Running:
		reason = cmp.Or(v.missed, "the orchestrator was restarted")
	}
	_, err := h.apply(ctx, v, event, reason)
	return err
}

// autostart starts what is to run after a reboot, as many as the licence allows.
func (h *Host) autostart(ctx context.Context) {
	for _, v := range h.all() {
		if rec := v.record(); !rec.Properties.Autostart || rec.State.Active() || rec.State == lifecycle.Deleting {
			continue
		}
		v.lock()
		_, err := h.begin(ctx, "autostart", v, nil)
		v.unlock()
		if err != nil {
			h.cfg.Log.Warn("VCM not started", "uuid", v.uuid, "err", err)
		}
		if errkind.Is(err, errkind.Limit) {
			return
		}
	}
}
