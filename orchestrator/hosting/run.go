package hosting

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

// Limits of one VCM's process.
const (
	memoryLimit = 256 << 20
	pidsLimit   = 256
)

// Start starts a VCM and waits at most timeout until it serves. A start that
// takes longer goes on.
func (h *Host) Start(ctx context.Context, by Actor, uuid string, file []byte, timeout time.Duration) (lifecycle.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, err := h.hold(ctx, uuid)
	if err != nil {
		return lifecycle.Record{}, err
	}
	rec, err := h.begin(ctx, by, v, file)
	v.unlock()
	if err != nil {
		return rec, err
	}
	rec, err = v.await(ctx, func(r lifecycle.Record) bool { return r.State != lifecycle.Starting })
	v.mu.Lock()
	last, final := v.lastErr, v.final
	v.mu.Unlock()
	switch {
	case err != nil:
		if last == "" {
			last = "no failure so far"
		}
		return rec, errkind.Errorf(errkind.Unavailable, "VCM %s is still starting after %s (%s); see 'vcmadmin show %s'", uuid, timeout, last, uuid)
	case rec.State == lifecycle.Failed && final != nil:
		return rec, fmt.Errorf("VCM %s did not start: %w", uuid, final)
	case rec.State == lifecycle.Failed:
		return rec, errkind.Errorf(errkind.Unavailable, "VCM %s did not start: %s", uuid, rec.Reason)
	case rec.State != lifecycle.Running:
		return rec, errkind.Errorf(errkind.Mode, "VCM %s is %s: %s", uuid, rec.State, rec.Reason)
	}
	return rec, nil
}

// begin admits the start and launches. v is held.
func (h *Host) begin(ctx context.Context, by Actor, v *vcm, file []byte) (lifecycle.Record, error) {
	rec := v.record()
	// What the state says is said before anything about the request.
	if _, changed, err := rec.Apply(lifecycle.Start, time.Now(), ""); err != nil || !changed {
		if err == nil {
			h.supervise(v) // a start whose answer was lost
		}
		return rec, err
	}
	t, err := h.now(ctx)
	if err != nil {
		return rec, err
	}
	if err := h.claim(v, rec, t, file); err != nil {
		return rec, err
	}
	if err := h.audit(ctx, by, "vcm.start", v.uuid, t.Module, nil); err != nil {
		v.unclaim()
		return rec, err
	}
	next, err := h.apply(ctx, v, lifecycle.Start, "")
	if err != nil {
		// What may yet turn out to be starting goes on counting until it is settled.
		if !errkind.Is(err, errkind.Unavailable) {
			v.unclaim()
		}
		h.auditOutcome(by, "vcm.start", v.uuid, t.Module, err)
		return rec, err
	}
	v.unclaim()
	h.supervise(v)
	return next, nil
}

// claim admits v as one of the active VCMs.
func (h *Host) claim(v *vcm, rec lifecycle.Record, t hsmapi.Time, file []byte) error {
	h.admission.Lock()
	defer h.admission.Unlock()
	share, err := h.admitter(t).Start(rec, file)
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.claimed, v.share = true, share
	v.mu.Unlock()
	return nil
}

// unclaim ends what claim began; the record says by now what has become of it.
func (v *vcm) unclaim() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.claimed = false; !v.rec.State.Active() {
		v.share = nil
	}
}

// supervise launches v, unless it has a process that was taken over, and keeps it
// running, unless that is being done. v is held, or nobody knows it yet.
func (h *Host) supervise(v *vcm) {
	if !v.idle() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lastErr, v.final = "", nil
	first := v.adopted
	v.adopted = nil
	s := launch.Resume(h.run, h.cfg.Policy, h.cfg.Log.With("uuid", v.uuid), first,
		func(ctx context.Context) (*launch.Process, error) { return h.launch(ctx, v) },
		func(ctx context.Context, r launch.Report) { h.hear(ctx, v, r) })
	v.super = s
	h.owned.Go(func() { <-s.Done() })
}

// launch starts v's process once. It waits for the unit, which may be away.
func (h *Host) launch(ctx context.Context, v *vcm) (*launch.Process, error) {
	select {
	case h.starts <- struct{}{}:
		defer func() { <-h.starts }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v.mu.Lock()
	v.serving = false
	v.mu.Unlock()
	sockets, err := h.listen(v)
	if err != nil {
		return nil, err
	}
	rec := v.record()
	return h.cfg.Launcher.Launch(ctx, launch.Spec{
		Start: vcmcontrol.Start{
			UUID: rec.UUID, ESN: rec.ESN, Name: rec.Properties.Name, Features: rec.Properties.Features,
			DiskQuota: rec.Properties.DiskQuota, SSHAdminKey: rec.SSHAdminKey, LogLevel: h.cfg.LogLevel,
			MemoryLimit: memoryLimit,
		},
		DataDir: h.dataDir(v.uuid),
		Slot:    rec.Slot,
		Sockets: sockets,
		Limits:  launch.Limits{Memory: memoryLimit, Pids: pidsLimit, CPUWeight: h.weight(rec)},
		Attach:  func(ctx context.Context, there *os.File) error { return h.attach(ctx, v, there) },
	})
}

// attach hands the unit its end of v's device channel, once the unit is there.
func (h *Host) attach(ctx context.Context, v *vcm, there *os.File) error {
	epoch, err := h.awaitUnit(ctx, v)
	if err != nil {
		return err
	}
	v.mu.Lock()
	in := hsmapi.Attach{UUID: v.uuid, Share: v.share, Speed: h.speed(v.rec)}
	v.mu.Unlock()
	return h.attachAt(ctx, v, epoch, in, there)
}

func (h *Host) attachAt(ctx context.Context, v *vcm, epoch int, in hsmapi.Attach, there *os.File) error {
	err := h.cfg.Unit.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error { return c.Attach(ctx, in, there) })
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.epoch = epoch
	v.mu.Unlock()
	return nil
}

// unitPatience is how long clients of a VCM wait for a unit that is away.
const unitPatience = 5 * time.Second

// awaitUnit waits for the unit, from some time on without clients.
func (h *Host) awaitUnit(ctx context.Context, v *vcm) (epoch int, err error) {
	soon, cancel := context.WithTimeout(ctx, unitPatience)
	defer cancel()
	if epoch, err = h.cfg.Unit.Wait(soon, 0); err == nil || ctx.Err() != nil {
		return epoch, err
	}
	h.refuse(v)
	if epoch, err = h.cfg.Unit.Wait(ctx, 0); err == nil {
		_, err = h.listen(v)
	}
	return epoch, err
}

func (h *Host) speed(rec lifecycle.Record) hsmapi.Speed {
	e := h.cfg.Entitlement()
	s := e.Features.ShareOf(licensing.Features(rec.Properties.Features), e.MaxActive)
	return hsmapi.Speed{Guaranteed: s.Guaranteed, Ceiling: s.Ceiling, Unit: e.Features.Rating().Capacity()}
}

// weight is the VCM's share of the processor where control groups can say so.
func (h *Host) weight(rec lifecycle.Record) int {
	switch licensing.Features(rec.Properties.Features).Rating() {
	case licensing.High:
		return 400
	case licensing.Mid:
		return 200
	default:
		return 100
	}
}

// Stop stops a VCM. Without force it refuses while the tenant's service is
// operational.
func (h *Host) Stop(ctx context.Context, by Actor, uuid string, force bool, timeout time.Duration) (lifecycle.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, err := h.hold(ctx, uuid)
	if err != nil {
		return lifecycle.Record{}, err
	}
	defer v.unlock()
	rec := v.record()
	if _, _, err := rec.Apply(lifecycle.Stop, time.Now(), ""); err != nil {
		return rec, err
	}
	finalised, err := h.idle(ctx, v)
	if err != nil && !force {
		return rec, err
	}
	at := h.stamp(ctx)
	if err := h.audit(ctx, by, "vcm.stop", uuid, at, map[string]string{"force": fmt.Sprint(force)}); err != nil {
		return rec, err
	}
	rec, err = h.apply(ctx, v, lifecycle.Stop, "")
	if err != nil {
		h.auditOutcome(by, "vcm.stop", uuid, at, err)
		return rec, err
	}
	// From here on the VCM is being stopped, whoever still waits for it.
	left, _ := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if err := h.end(ctx, v, force, time.Until(left)); err != nil {
		h.auditOutcome(by, "vcm.stop", uuid, at, err)
		kept, _ := h.apply(ctx, v, lifecycle.Kept, "")
		return kept, err
	}
	if rec.State == lifecycle.Stopped { // it had failed: there was no process
		return rec, nil
	}
	h.report(ctx, v, launch.Report{Event: lifecycle.Ended, Finalised: finalised})
	return v.record(), nil
}

// idle refuses while the tenant's service is operational. finalised says that
// the tenant has exported the VCM's audit log.
func (h *Host) idle(ctx context.Context, v *vcm) (finalised bool, err error) {
	p, ok := v.process()
	if !ok {
		return false, nil
	}
	m, err := p.Mode(ctx)
	if err != nil {
		return false, nil // one that does not answer may be stopped
	}
	if m.Operational {
		return false, errkind.Errorf(errkind.Mode,
			"the token service of VCM %s is operational; ask the tenant to put it into maintenance mode, or use --force if you have authority to", v.uuid)
	}
	return m.Finalised, nil
}

// end stops v's process and refuses its clients. v is held.
func (h *Host) end(ctx context.Context, v *vcm, force bool, drain time.Duration) error {
	v.mu.Lock()
	s := v.super
	v.mu.Unlock()
	if s != nil {
		// Leave time to answer the caller within his patience.
		drain = max(time.Second, min(drain-2*time.Second, 10*time.Second))
		if err := s.Stop(ctx, vcmcontrol.Stop{Force: force, Drain: drain.Milliseconds()}); err != nil {
			return err
		}
	}
	v.mu.Lock()
	v.super, v.share, v.lastErr = nil, nil, ""
	v.mu.Unlock()
	h.refuse(v)
	return nil
}

func (v *vcm) process() (*launch.Process, bool) {
	v.mu.Lock()
	s := v.super
	v.mu.Unlock()
	if s == nil {
		return nil, false
	}
	return s.Process()
}

// forgotten is the epoch of a VCM that was taken over and whose unit went away before.
const forgotten = -1

// followUnit gives VCMs another device channel whose own ended because the unit was
// away. They serve meanwhile, and go on with the partition as they have it.
func (h *Host) followUnit(epoch int) {
	for {
		h.each(func(v *vcm) { h.rejoin(v, epoch) })
		now, err := h.cfg.Unit.Wait(h.run, epoch)
		if err != nil {
			return
		}
		epoch = now
	}
}

// rejoin gives v another device channel if its own is of an earlier epoch. A VCM that
// cannot go on with it drains, ends and opens its partition anew; its sockets go on
// listening, so clients wait instead of being refused.
func (h *Host) rejoin(v *vcm, epoch int) {
	v.joining.Lock()
	defer v.joining.Unlock()
	p, ok := v.process() // if not, it is being started, which looks here again
	v.mu.Lock()
	stale := v.epoch != 0 && v.epoch < epoch
	v.mu.Unlock()
	if !ok || !stale {
		return
	}
	channel, err := launch.Attach(h.run, func(ctx context.Context, there *os.File) error {
		v.mu.Lock()
		in := hsmapi.Attach{UUID: v.uuid, Speed: h.speed(v.rec), Resume: true}
		v.mu.Unlock()
		return h.attachAt(ctx, v, epoch, in, there)
	})
	if err == nil {
		err = p.Device(h.run, channel)
	}
	if err == nil {
		h.cfg.Log.Info("VCM goes on with the unit", "uuid", v.uuid)
		return
	}
	if now, here := h.cfg.Unit.Epoch(); !here || now != epoch || h.run.Err() != nil {
		return // it is away again: next time
	}
	h.cfg.Log.Warn("VCM cannot go on with the unit and is started again", "uuid", v.uuid, "err", err)
	v.mu.Lock()
	s := v.super
	v.mu.Unlock()
	if s == nil {
		return
	}
	if err := s.Restart(h.run, h.cfg.Policy.Drain); err != nil {
		h.cfg.Log.Warn("VCM not restarted after the unit came back", "uuid", v.uuid, "err", err)
	}
}
