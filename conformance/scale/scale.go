// Package scale puts a great number of VCMs through their whole life on one unit
// made of the real binaries, as a provider with a script would: over several
// connections at once, with the orchestrator killed in between. It measures what
// they cost and finds what is stuck.
//
// Every VCM is created from a signed request of its own tenant, started, and
// made to vend: its tenant installs his service key, introduces a key management
// centre, loads a vending key from it and issues a token, which a meter accepts.
// There is no sample.
package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Config says what to run.
type Config struct {
	Bin, Dir string
	N        int
	Workers  int           // connections at once
	Idle     time.Duration // over which idle processor time is measured
	Out      io.Writer
	// Flags are further options of orchestratord.
	Flags []string
}

// run is one run.
type run struct {
	Config
	rig     *rig.Rig
	fleet   fleet
	tenants []*Tenant
	unit    ssh.PublicKey
	hsmd    *rig.Daemon
	orch    *rig.Daemon
	kills   int
	report  report
	before  int64 // available memory without a VCM
}

// Run does it all. The daemons have ended when it returns.
func Run(ctx context.Context, cfg Config) (err error) {
	log, err := os.OpenFile(filepath.Join(cfg.Dir, "commands.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	r := &run{Config: cfg, rig: rig.New(cfg.Bin, cfg.Dir, log), report: report{out: cfg.Out}}
	defer func() { err = errors.Join(err, r.rig.Stop()) }()
	for _, phase := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"make a unit", r.prepare}, {"create", r.create}, {"start", r.start}, {"idle", r.idle}, {"list and stats", r.ask},
		{"kill the orchestrator", r.restart}, {"kill the unit", r.unitAway}, {"kill everything", r.restartAll}, {"vend", r.vend}, {"use after vending", r.use}, {"stop", r.stop}, {"delete", r.delete},
		{"see that nothing is left", r.nothing},
	} {
		if err := phase.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	r.report.line("", "orchestrator killed", "%d times, nothing stuck", r.kills)
	return r.report.verdict()
}

// prepare makes a unit licensed for N VCMs.
func (r *run) prepare(ctx context.Context) (err error) {
	if err := r.rig.Maker(ctx); err != nil {
		return err
	}
	if r.hsmd, r.orch, err = r.rig.Unit(ctx, append([]string{"--network", network()}, r.Flags...)...); err != nil {
		return err
	}
	if err := r.rig.EnrolProvider(ctx); err != nil {
		return err
	}
	if r.unit, err = r.rig.UnitKey(); err != nil {
		return err
	}
	if err := r.rig.Licence(ctx, "speed", "HSMSpeed2"); err != nil {
		return err
	}
	if err := r.rig.Licence(ctx, "max-active-vcms", fmt.Sprint(r.N)); err != nil {
		return err
	}
	d, err := r.rig.Direct(ctx)
	if err != nil {
		return err
	}
	r.fleet = fleet{direct: d, workers: r.Workers}
	r.before, err = available()
	return err
}

// network has room for every VCM and lies beyond those that rigs draw theirs
// from: while the orchestrator is dead another could take an address.
func network() string { return fmt.Sprintf("127.%d.0.0/16", 130+rand.IntN(120)) }

// phase runs fn for every VCM and prints its time; kill is true if the
// orchestrator is to be killed half way.
func (r *run) phase(ctx context.Context, name string, kill bool, do deed) (time.Duration, error) {
	var progress atomic.Int64
	killed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if kill {
		go func() { killed <- r.killAt(ctx, &progress, int64(r.N/2)) }()
	} else {
		killed <- nil
	}
	began := time.Now()
	err := r.fleet.each(ctx, r.N, &progress, do)
	took := time.Since(began)
	if err != nil {
		cancel()
	}
	err = errors.Join(err, <-killed)
	note := ""
	if kill {
		note = ", orchestrator killed half way"
	}
	if err == nil {
		r.report.line("", name, "%.2f s, %.1f ms each, %d connections%s", took.Seconds(), took.Seconds()*1e3/float64(r.N), r.Workers, note)
	}
	return took, err
}

// killAt kills the orchestrator when progress has come to n, and starts it again.
func (r *run) killAt(ctx context.Context, progress *atomic.Int64, n int64) error {
	for progress.Load() < n {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
	return r.kill()
}

func (r *run) kill() error {
	r.rig.Kill(r.orch)
	r.kills++
	return r.rig.Restart(r.orch)
}

func (r *run) create(ctx context.Context) error {
	for i := range r.N {
		t, err := NewTenant(fmt.Sprintf("scale-%04d", i))
		if err != nil {
			return err
		}
		r.tenants = append(r.tenants, t)
	}
	_, err := r.phase(ctx, "create", true, func(ctx context.Context, h *rig.Hosting, i int) error {
		t := r.tenants[i]
		if t.uuid == "" && t.endpoints != nil { // the answer of an earlier try was lost
			if v, err := find(ctx, h, t.name); err != nil || v != nil {
				if v != nil {
					t.Got(v)
				}
				return err
			}
		}
		t.endpoints = map[string]string{}
		file, err := t.Request()
		if err != nil {
			return err
		}
		c, err := h.Create(ctx, file, &orchestrator.CreateChoices{Name: t.name})
		if err == nil {
			t.Got(c.Vcm)
		}
		return err
	})
	if err != nil {
		return err
	}
	all, err := r.fleet.list(ctx)
	if err == nil && len(all) != r.N {
		err = fmt.Errorf("%d VCMs are there after %d were created", len(all), r.N)
	}
	return err
}

func find(ctx context.Context, h *rig.Hosting, name string) (*orchestrator.Vcm, error) {
	all, err := h.ListVcms(ctx, false)
	for _, v := range all {
		if v.Properties.Name == name {
			return v, err
		}
	}
	return nil, err
}

// accept takes a refusal for success if the VCM is in the wanted state: an
// earlier try had the effect and lost the answer.
func (r *run) accept(ctx context.Context, h *rig.Hosting, i int, err error, state string) error {
	if kind, said := kindOf(err); err == nil || !said || kind != errkind.Mode {
		return err
	}
	v, e := h.Show(ctx, r.tenants[i].uuid)
	if e == nil && v.State == state {
		return nil
	}
	return err
}

func (r *run) startOne(ctx context.Context, h *rig.Hosting, i int) error {
	_, err := h.Start(ctx, r.tenants[i].uuid, nil, 60)
	return r.accept(ctx, h, i, err, "running")
}

func (r *run) start(ctx context.Context) error {
	before, err := processorTime(r.daemons())
	if err != nil {
		return err
	}
	took, err := r.phase(ctx, "start", false, r.startOne)
	if err != nil {
		return err
	}
	r.report.bound("start all", took.Seconds(), 15*float64(r.N)/1000, "s")
	after, err := processorTime(r.daemons())
	if err != nil {
		return err
	}
	used, each := after.minus(before), func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(r.N) }
	r.report.line("", "CPU of a start", "%.1f ms in the VCM, %.1f ms in orchestratord, %.1f ms in hsmd",
		each(used.vcms), each(used.orchestratord), each(used.hsmd))
	_, err = r.fleet.settle(ctx, "running")
	return err
}

func (r *run) daemons() daemons {
	return daemons{orchestratord: r.orch.PID(), hsmd: r.hsmd.PID(), state: r.rig.Path("platform")}
}

// restart kills the orchestrator while every VCM runs: the next one takes all over,
// and none is started again.
func (r *run) restart(ctx context.Context) error {
	before, _, err := r.daemons().children()
	if err != nil {
		return err
	}
	took, err := r.away(ctx, "all taken over after a kill", func() {})
	if err != nil {
		return err
	}
	r.report.bound("take all over", took.Seconds(), 2+3*float64(r.N)/1000, "s")
	after, _, err := r.daemons().children()
	if err == nil && !slices.Equal(before, after) {
		err = fmt.Errorf("the %d processes are not the %d that there were before", len(after), len(before))
	}
	return err
}

// unitAway kills the unit while every VCM runs: all go on with it once it is back, and
// none is started again.
func (r *run) unitAway(ctx context.Context) error {
	before, _, err := r.daemons().children()
	if err != nil {
		return err
	}
	began := time.Now()
	r.rig.Kill(r.hsmd)
	if err := r.rig.Restart(r.hsmd); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("not all VCMs go on with the unit"))
	defer cancel()
	for r.rig.Resumed("") < r.N {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	r.report.bound("go on with a unit that was killed", time.Since(began).Seconds(), 2+3*float64(r.N)/1000, "s")
	after, _, err := r.daemons().children()
	if err == nil && !slices.Equal(before, after) {
		err = fmt.Errorf("the %d processes are not the %d that there were before the unit was killed", len(after), len(before))
	}
	return err
}

// restartAll kills who keeps the VCMs, too: all end, and come back without being
// asked for.
func (r *run) restartAll(ctx context.Context) error {
	_, forkers, err := r.daemons().children()
	if err != nil {
		return err
	}
	_, err = r.away(ctx, "all back after all were killed", func() {
		for _, pid := range forkers {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return err
}

// away kills the orchestrator, and tells how long it took until all VCMs run.
func (r *run) away(ctx context.Context, what string, meanwhile func()) (took time.Duration, err error) {
	began := time.Now()
	r.rig.Kill(r.orch)
	meanwhile()
	r.kills++
	if err := r.rig.Restart(r.orch); err != nil {
		return 0, err
	}
	if _, err := r.fleet.settle(ctx, "running"); err != nil {
		return 0, err
	}
	took = time.Since(began)
	r.report.line("", what, "%.2f s, %.1f ms each", took.Seconds(), took.Seconds()*1e3/float64(r.N))
	return took, nil
}

func (r *run) vend(ctx context.Context) error {
	centres := make(chan *Centre, r.Workers)
	for i := range r.Workers {
		c, err := NewCentre(r.rig.Path("kmc", fmt.Sprint(i)))
		if err != nil {
			return err
		}
		centres <- c
	}
	_, err := r.phase(ctx, "key load and a token", false, func(ctx context.Context, _ *rig.Hosting, i int) error {
		c := <-centres
		defer func() { centres <- c }()
		if err := r.tenants[i].vend(ctx, r.unit, c); err != nil {
			return refused{err}
		}
		return nil
	})
	return err
}

// refused keeps a tenant's error from being taken for the provider's connection.
type refused struct{ error }

func (r *run) stop(ctx context.Context) error {
	_, err := r.phase(ctx, "stop", true, func(ctx context.Context, h *rig.Hosting, i int) error {
		_, err := h.Stop(ctx, r.tenants[i].uuid, true, 30)
		return r.accept(ctx, h, i, err, "stopped")
	})
	if err != nil {
		return err
	}
	_, err = r.fleet.settle(ctx, "stopped")
	return err
}

func (r *run) delete(ctx context.Context) error {
	_, err := r.phase(ctx, "delete", true, func(ctx context.Context, h *rig.Hosting, i int) error {
		err := h.Remove(ctx, r.tenants[i].uuid, true)
		if kind, said := kindOf(err); said && kind == errkind.NotFound {
			return nil // by an earlier try
		}
		return err
	})
	return err
}

// nothing looks for what a thousand VCMs may have left.
func (r *run) nothing(ctx context.Context) error {
	all, err := r.fleet.list(ctx)
	if err != nil || len(all) > 0 {
		return fmt.Errorf("%d VCMs are left: %w", len(all), err)
	}
	children, _, err := r.daemons().children()
	if err != nil || len(children) > 0 {
		return fmt.Errorf("%d processes are left: %w", len(children), err)
	}
	data, err := os.ReadDir(r.rig.Path("platform", "vcms"))
	if err != nil || len(data) > 0 {
		return fmt.Errorf("%d data folders are left: %w", len(data), err)
	}
	return nil
}
