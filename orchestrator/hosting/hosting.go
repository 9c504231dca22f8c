// Package hosting carries out what the provider asks for: it joins admission,
// the life cycle, the registry, the network, the unit and the launcher, and
// brings every VCM back to where it was after a crash: of its own, which VCMs
// outlive (see package launch), or of theirs.
//
// # Order of effects
//
// Admission, then the audit entry, then the record, then the effect, then the
// record again. An operation that dies in between is finished or undone by Open
// of the next run: nothing is left stuck. What was answered had been stored.
//
// A report of a process (it serves, it was lost) cannot be refused: it changes
// the record in memory at once and the stored one as soon as the store answers.
package hosting

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
)

// Config is what hosting needs.
type Config struct {
	Identity hsmapi.Identity
	Unit     *unit.Unit
	VCMs     registry.VCMs
	Launcher *launch.Launcher
	Policy   launch.Policy
	Network  network.Network
	DataDir  string // one folder a VCM in it
	// Entitlement is what licences allow now.
	Entitlement func() licensing.Entitlement
	// Audit makes an entry of the platform's log durable.
	Audit func(context.Context, auditlog.Entry) error
	// File makes the configuration file that a VCM's tenant gets.
	File     func(context.Context, lifecycle.Record) ([]byte, error)
	Log      *slog.Logger
	LogLevel string // for the VCMs
}

// Actor is who asks, as the audit log names him.
type Actor string

// Host runs the VCMs of one unit.
type Host struct {
	cfg    Config
	run    context.Context // ends when the host closes
	cancel context.CancelCauseFunc
	owned  sync.WaitGroup // every goroutine of the host
	starts chan struct{}  // bounds how many VCMs start at once

	// admission is held from a decision that looks at all VCMs until its outcome
	// is in memory, so that no two decisions count on the same room. Storing
	// comes after: many requests share a commit.
	admission sync.Mutex
	counted   []lifecycle.Record // room for what admission counts; under admission

	read atomic.Pointer[reading] // the last one; nil before the first

	mu   sync.Mutex
	vcms map[string]*vcm
}

// Open takes the unit's VCMs up where the last run left them: those that serve
// serve on, whatever became of that run. rebooted means
// that they were shut down, or the whole host: then only those with autostart
// run again.
func Open(ctx context.Context, cfg Config, rebooted bool) (*Host, error) {
	run, cancel := context.WithCancelCause(context.Background())
	h := &Host{
		cfg: cfg, run: run, cancel: cancel, vcms: map[string]*vcm{},
		starts: make(chan struct{}, max(4, 2*runtime.GOMAXPROCS(0))),
	}
	if err := h.recover(ctx, rebooted); err != nil {
		h.Leave() // the next run takes everything up again
		return nil, err
	}
	epoch, _ := cfg.Unit.Epoch()
	h.owned.Go(func() { h.followUnit(epoch) })
	h.owned.Go(h.flush)
	h.owned.Go(h.throttle)
	return h, nil
}

// Close drains and ends every VCM's process and records them as stopped. After
// it the next run counts as a reboot.
func (h *Host) Close(ctx context.Context) {
	h.cancel(nil)
	h.owned.Wait()
	h.each(func(v *vcm) {
		v.lock()
		defer v.unlock()
		if _, err := h.apply(ctx, v, lifecycle.Reboot, "the unit was shut down"); err != nil {
			h.cfg.Log.Warn("not recorded as stopped", "uuid", v.uuid, "err", err)
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		network.CloseAll(v.sockets) // a local address stays: the next run wants it again
		v.place, v.sockets = network.Place{}, nil
	})
}

// each calls fn for every VCM, several at a time, and waits.
func (h *Host) each(fn func(*vcm)) {
	work := make(chan *vcm)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for v := range work {
				fn(v)
			}
		})
	}
	for _, v := range h.all() {
		work <- v
	}
	close(work)
	workers.Wait()
}

// vcm is one VCM of a running host.
type vcm struct {
	uuid string
	// busy is held during an operation of the provider.
	busy chan struct{}

	// writing is held while the record is being stored.
	writing sync.Mutex
	unsure  bool // the last write may or may not have happened; under writing

	joining sync.Mutex // held while it is given another device channel

	mu       sync.Mutex
	rec      lifecycle.Record
	rev      registry.Rev
	dirty    bool          // the stored record is older than rec
	erased   bool          // nothing is left of it
	claimed  bool          // admitted to start; rec will say so in a moment
	lastErr  string        // why the last attempt to start failed
	final    error         // why supervision gave up
	changed  chan struct{} // closed and replaced when rec changes
	super    *launch.Supervisor
	adopted  *launch.Process  // of an earlier run; until it has a supervisor
	missed   string           // what became of such a process that does not serve
	place    network.Place    // of sockets
	sockets  []network.Socket // reserved for as long as v exists
	homeless bool             // the last try to reserve them failed
	serving  bool             // the process that was launched last did get ready
	share    []byte           // of a restrict-startup VCM's key, sealed to the unit
	epoch    int              // of the unit's connection that the process's channel came from
	since    time.Time        // it serves
}

func newVCM(rec lifecycle.Record, rev registry.Rev) *vcm {
	return &vcm{uuid: rec.UUID, busy: make(chan struct{}, 1), rec: rec, rev: rev, changed: make(chan struct{})}
}

func (v *vcm) lock()   { v.busy <- struct{}{} }
func (v *vcm) unlock() { <-v.busy }

// acquire is lock with patience.
func (v *vcm) acquire(ctx context.Context) error {
	select {
	case v.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errkind.Errorf(errkind.Unavailable, "VCM %s is busy with another command: %w", v.uuid, context.Cause(ctx))
	}
}

func (v *vcm) record() lifecycle.Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rec
}

// hold gives the VCM to an operation until it unlocks it.
func (h *Host) hold(ctx context.Context, uuid string) (*vcm, error) {
	v, err := h.find(uuid)
	if err != nil {
		return nil, err
	}
	if err := v.acquire(ctx); err != nil {
		return nil, err
	}
	if _, err := h.find(uuid); err != nil { // deleted while we waited
		v.unlock()
		return nil, err
	}
	return v, nil
}

func (h *Host) find(uuid string) (*vcm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.vcms[uuid]
	if !ok || v.record().Pending {
		return nil, errkind.Errorf(errkind.NotFound, "unit %s has no VCM %s", h.cfg.Identity.ESN, uuid)
	}
	return v, nil
}

// all returns the VCMs in the order of their creation.
func (h *Host) all() []*vcm {
	h.mu.Lock()
	out := make([]*vcm, 0, len(h.vcms))
	for _, v := range h.vcms {
		out = append(out, v)
	}
	h.mu.Unlock()
	at := make(map[*vcm]time.Time, len(out))
	for _, v := range out {
		at[v] = v.record().Created
	}
	sort.Slice(out, func(i, j int) bool {
		if a, b := at[out[i]], at[out[j]]; !a.Equal(b) {
			return a.Before(b)
		}
		return out[i].uuid < out[j].uuid
	})
	return out
}

// records returns the VCMs as admission counts them, in any order. They are there
// until h.admission, which the caller holds, is released: a copy of its own for each
// of a thousand starts was most of what they left to be collected.
func (h *Host) records() []lifecycle.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Grow(h.counted[:0], len(h.vcms))
	for _, v := range h.vcms {
		v.mu.Lock()
		rec := v.rec
		if v.claimed {
			rec.State = lifecycle.Starting
		}
		v.mu.Unlock()
		out = append(out, rec)
	}
	h.counted = out
	return out
}

// now reads both clocks. Without the unit there is no time to decide by.
func (h *Host) now(ctx context.Context) (t hsmapi.Time, err error) {
	err = h.cfg.Unit.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error {
		t, err = c.Time(ctx)
		return err
	})
	if err == nil {
		h.read.Store(&reading{module: t.Module, at: time.Now()})
	}
	return t, err
}

// reading is what the module's clock showed.
type reading struct{ module, at time.Time }

// readingGood is how long a record's time may be reckoned from a reading. What
// follows a decision within a moment need not wait for the unit again.
const readingGood = time.Second

// admitter is the unit as admission sees it. The caller holds h.admission.
func (h *Host) admitter(t hsmapi.Time) admit.Unit {
	return admit.Unit{Entitlement: h.cfg.Entitlement(), Network: h.cfg.Network, VCMs: h.records(), Clock: t}
}

func (h *Host) audit(ctx context.Context, by Actor, kind, uuid string, at time.Time, detail map[string]string) error {
	err := h.cfg.Audit(ctx, auditlog.Entry{Time: at.UTC(), Kind: kind, Actor: string(by), Subject: uuid, Detail: detail})
	if err != nil {
		return errkind.Errorf(errkind.Unavailable, "nothing was done, because the audit log cannot be written: %w", err)
	}
	return nil
}

// auditOutcome adds why an operation that had its entry did not succeed.
func (h *Host) auditOutcome(by Actor, kind, uuid string, at time.Time, err error) {
	if err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	detail := map[string]string{"kind": errkind.Of(err).String(), "error": fmt.Sprintf("%.300s", err)}
	if e := h.audit(ctx, by, kind+".failed", uuid, at, detail); e != nil {
		h.cfg.Log.Error("audit entry lost", "kind", kind+".failed", "uuid", uuid, "err", e)
	}
}

func (h *Host) dataDir(uuid string) string { return filepath.Join(h.cfg.DataDir, uuid) }
