package hosting

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
)

const (
	// storeTimeout bounds what the registry is asked for on nobody's behalf.
	storeTimeout = 5 * time.Second
	// callTimeout bounds a call that does not say how long its caller waits. He
	// ends it by leaving, which the longest --timeout makes him do.
	callTimeout = 120 * time.Second
)

// storing is ctx for the registry, which tries until it ends: until a caller's
// time is over, if there is one.
func storing(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, storeTimeout)
}

// lasting is ctx for what a caller began and cannot leave half done: it has his
// time and a little more.
func lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	left := storeTimeout
	if end, has := ctx.Deadline(); has {
		left = max(left, time.Until(end))
	}
	return context.WithTimeout(context.WithoutCancel(ctx), left)
}

// apply lets e happen to v and stores the record before it returns. Nothing
// changes in memory when the store did not take it.
func (h *Host) apply(ctx context.Context, v *vcm, e lifecycle.Event, reason string) (lifecycle.Record, error) {
	return h.update(ctx, v, func(r lifecycle.Record) (lifecycle.Record, bool, error) {
		return r.Apply(e, h.stamp(ctx), reason)
	})
}

// maxConflicts is how many writes of an earlier operation, each thought lost, may
// turn up late in the middle of another.
const maxConflicts = 3

// update stores what fn makes of the record.
func (h *Host) update(ctx context.Context, v *vcm, fn func(lifecycle.Record) (lifecycle.Record, bool, error)) (lifecycle.Record, error) {
	v.writing.Lock()
	defer v.writing.Unlock()
	for tries := 1; ; tries++ {
		if err := h.reload(ctx, v); err != nil {
			return v.record(), err
		}
		rec := v.record()
		next, changed, err := fn(rec)
		if err != nil || !changed {
			return rec, err
		}
		err = h.store(ctx, v, next)
		switch {
		case err == nil:
			return next, nil
		case !errors.Is(err, registry.ErrConflict):
			return rec, err
		case tries == maxConflicts:
			return rec, errkind.Errorf(errkind.Unavailable, "VCM %s: %w", v.uuid, err)
		}
	}
}

// store writes next and, once it is durable, makes it the record. v.writing is held.
func (h *Host) store(ctx context.Context, v *vcm, next lifecycle.Record) error {
	ctx, cancel := storing(ctx)
	defer cancel()
	v.mu.Lock()
	rev := v.rev
	v.mu.Unlock()
	rev, err := h.cfg.VCMs.Swap(ctx, v.uuid, rev, next)
	if err != nil {
		v.unsure = v.unsure || errkind.Is(err, errkind.Unavailable) || errors.Is(err, registry.ErrConflict)
		return err
	}
	v.unsure = false
	v.mu.Lock()
	v.rec, v.rev, v.dirty = next, rev, false
	v.announce()
	v.mu.Unlock()
	return nil
}

// reload learns what the store has when the last write's outcome is not known.
// Reports that are not stored yet stay: they are younger. v.writing is held.
func (h *Host) reload(ctx context.Context, v *vcm) error {
	if !v.unsure {
		return nil
	}
	ctx, cancel := storing(ctx)
	defer cancel()
	rec, rev, err := h.cfg.VCMs.Get(ctx, v.uuid)
	if err != nil {
		return err
	}
	v.unsure = false
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.dirty {
		v.rec = rec
		v.announce()
	}
	v.rev = rev
	return nil
}

// announce tells who waits for a change. v.mu is held.
func (v *vcm) announce() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// report lets a process's report happen: in memory now, in the store when it
// can be.
func (h *Host) report(ctx context.Context, v *vcm, r launch.Report) {
	v.writing.Lock()
	defer v.writing.Unlock()
	at := h.stamp(ctx)
	if r.Event == lifecycle.GiveUp || r.Event == lifecycle.Lost && !v.served() {
		h.refuse(v) // until the next attempt, if there is one
	}
	next, changed, err := h.take(v, r, at)
	if err != nil {
		h.cfg.Log.Error("report refused", "uuid", v.uuid, "event", r.Event, "err", err)
		return
	}
	if !changed {
		return
	}
	if r.Event == lifecycle.Ready {
		h.auditIsolation(ctx, v.uuid, at, r.Ready)
	}
	if err = h.reload(ctx, v); err == nil {
		err = h.store(ctx, v, next)
	}
	if err != nil {
		h.cfg.Log.Warn("record not stored yet", "uuid", v.uuid, "state", next.State, "err", err)
	}
}

// served reports whether the process that was launched last got ready.
func (v *vcm) served() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.serving
}

// take changes the record in memory.
func (h *Host) take(v *vcm, r launch.Report, at time.Time) (next lifecycle.Record, changed bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next, changed, err = v.rec.Apply(r.Event, at, r.Reason)
	if err != nil {
		return next, false, err
	}
	if r.Event == lifecycle.Ready {
		next.Level, next.Controls, next.Finalised, changed = r.Ready.Level, r.Ready.Controls, false, true
		next.TestMode = r.Ready.TestMode
		v.since, v.lastErr, v.serving = time.Now(), "", true
	} else {
		next.Finalised = r.Finalised
		v.lastErr, v.final = r.Reason, r.Err
	}
	if changed {
		v.rec, v.dirty = next, true
		v.announce()
	}
	return next, changed, nil
}

// flush stores the records whose reports could not be stored at once, and
// settles what a lost answer left open.
func (h *Host) flush() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-h.run.Done():
			return
		case <-tick.C:
		}
		for _, v := range h.all() {
			h.flushOne(v)
			h.settle(v)
		}
	}
}

func (h *Host) flushOne(v *vcm) {
	v.mu.Lock()
	dirty := v.dirty
	v.mu.Unlock()
	if !dirty {
		return
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	if err := h.reload(h.run, v); err != nil {
		return // again with the next tick
	}
	v.mu.Lock()
	rec, dirty := v.rec, v.dirty
	v.mu.Unlock()
	if dirty {
		_ = h.store(h.run, v, rec) // or with the next tick
	}
}

// settle goes on with what a record says is under way and nobody does: the
// operation that began it failed towards its caller because the registry's answer
// was lost. Whoever operates on a VCM holds it, so one that is free and yet
// starting without a supervisor, stopping, deleting or pending is left over.
//
// What may have been seen is not undone: nobody asked for that.
func (h *Host) settle(v *vcm) {
	select {
	case v.busy <- struct{}{}:
		defer v.unlock()
	default:
		return
	}
	v.writing.Lock()
	err := h.reload(h.run, v)
	v.writing.Unlock()
	if errkind.Is(err, errkind.NotFound) {
		err = h.erase(h.run, v) // the record is gone; the rest has to go, too
	}
	if err != nil || v.gone() {
		return // or with the next tick
	}
	rec := v.record()
	switch {
	case rec.Pending:
		h.rollBack(h.run, v)
	case rec.State == lifecycle.Deleting:
		err = h.erase(h.run, v)
	case rec.State == lifecycle.Starting:
		h.supervise(v)
	case rec.State == lifecycle.Stopping && v.idle():
		_, err = h.apply(h.run, v, lifecycle.Ended, "the registry did not answer")
	case rec.State == lifecycle.Stopping:
		_, err = h.apply(h.run, v, lifecycle.Kept, "the registry did not answer")
	default:
		h.keep(v)
	}
	if err != nil {
		h.cfg.Log.Warn("not settled yet", "uuid", v.uuid, "state", rec.State, "err", err)
		return
	}
	v.unclaim()
}

// idle reports whether nobody keeps a process of v running. v is held.
func (v *vcm) idle() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.super == nil {
		return true
	}
	select {
	case <-v.super.Done(): // it gave up
		return true
	default:
		return false
	}
}

// stamp is the module's time for a record, the host's while the unit is away.
func (h *Host) stamp(ctx context.Context) time.Time {
	if r := h.read.Load(); r != nil {
		if since := time.Since(r.at); since < readingGood {
			return r.module.Add(since).UTC()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	t, err := h.now(ctx)
	if err != nil {
		return time.Now().UTC()
	}
	return t.Module.UTC()
}

// await waits until the record satisfies fn.
func (v *vcm) await(ctx context.Context, fn func(lifecycle.Record) bool) (lifecycle.Record, error) {
	for {
		v.mu.Lock()
		rec, changed := v.rec, v.changed
		v.mu.Unlock()
		if fn(rec) {
			return rec, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return rec, ctx.Err()
		}
	}
}

// enforced is what a control got that an attempt could not pass.
const enforced = "enforced"

// auditIsolation notes what isolation a start achieved, and what it lacks.
func (h *Host) auditIsolation(ctx context.Context, uuid string, at time.Time, r vcmcontrol.Ready) {
	detail := map[string]string{"level": r.Level}
	for _, c := range r.Controls {
		if c.Got != enforced {
			detail["lacks-"+c.Control] = fmt.Sprintf("%.100s", c.Got)
		}
	}
	if err := h.audit(ctx, "unit", "vcm.ready", uuid, at, detail); err != nil {
		h.cfg.Log.Error("isolation not in the audit log", "uuid", uuid, "err", err)
	}
}
