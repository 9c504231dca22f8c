package hosting

import (
	"context"
	"sync"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// adopters is how many processes are taken over at once.
const adopters = 16

// adopt takes the processes over that an earlier run left. Those that serve and
// are to serve go on; every other is ended here, so that no VCM has two.
func (h *Host) adopt(ctx context.Context, rebooted bool) {
	ctx = context.WithoutCancel(ctx) // half of it would be the end of those that serve
	epoch, _ := h.cfg.Unit.Epoch()
	slots := make(chan struct{}, adopters)
	var all sync.WaitGroup
	for _, k := range h.cfg.Launcher.Kept() {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			h.adoptOne(ctx, k, epoch, rebooted)
		})
	}
	all.Wait()
}

func (h *Host) adoptOne(ctx context.Context, k launch.Kept, epoch int, rebooted bool) {
	log := h.cfg.Log.With("uuid", k.UUID, "pid", k.PID)
	v := h.vcms[k.UUID]
	p, err := h.cfg.Launcher.Take(ctx, k)
	if err != nil {
		reason := "the process ended while there was no orchestrator: " + k.Ending()
		if !k.Ended {
			reason = "the process could not be taken over: " + err.Error()
		}
		log.Warn("VCM lost", "reason", reason)
		if v != nil {
			v.missed = reason
		}
		return
	}
	var rec lifecycle.Record
	if v != nil {
		rec = v.record()
	}
	switch {
	case rebooted || rec.Pending || !rec.State.Active():
		log.Warn("a process is left that should not be; it is ended", "state", rec.State)
		p.Terminate(0)
		return
	case rec.State == lifecycle.Stopping: // it was admitted, and perhaps it knows already
		_ = p.Stop(ctx, vcmcontrol.Stop{Force: true, Drain: h.cfg.Policy.Drain.Milliseconds()})
		return
	}
	to := place(rec.Properties)
	sockets, away, err := p.Greet(ctx, network.Endpoints(to))
	if err != nil {
		if !errkind.Is(err, errkind.Unavailable) { // else it was about to start
			log.Error("the process of a VCM cannot be taken over; it is started again", "err", err)
		}
		p.Kill()
		v.missed = "the orchestrator was restarted"
		return
	}
	if away {
		epoch = forgotten
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.adopted, v.place, v.sockets, v.serving, v.epoch, v.since = p, to, sockets, true, epoch, p.Since()
}

// hear is report for a process that may have been taken over: if the record says
// already that it serves, nothing has happened to it.
func (h *Host) hear(ctx context.Context, v *vcm, r launch.Report) {
	ready := r.Event == lifecycle.Ready
	if !ready || r.Since.IsZero() || v.record().State != lifecycle.Running {
		h.report(ctx, v, r)
		if !r.Since.IsZero() {
			v.mu.Lock()
			v.since = r.Since
			v.mu.Unlock()
		}
	}
	// The unit may have been away during the start, or while there was no orchestrator.
	// If it still is, followUnit does it.
	if epoch, here := h.cfg.Unit.Epoch(); ready && here {
		h.rejoin(v, epoch)
	}
}

// Leave lets go of every VCM. They serve on, and no record changes: the next host
// takes them over.
func (h *Host) Leave() {
	h.cancel(launch.ErrLeave)
	h.owned.Wait()
	for _, v := range h.all() {
		v.mu.Lock()
		p := v.adopted
		network.CloseAll(v.sockets)
		v.adopted, v.place, v.sockets = nil, network.Place{}, nil
		v.mu.Unlock()
		if p != nil {
			p.Leave()
		}
	}
}
