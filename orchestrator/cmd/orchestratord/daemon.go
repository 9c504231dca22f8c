package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/orchestrator/platform"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
)

const (
	// connectTimeout is the patience with hsmd, etcd and a former owner at start.
	connectTimeout = 30 * time.Second
	connectPause   = 100 * time.Millisecond
	// missingTimeout is the patience with hsmd's socket while there is none.
	missingTimeout = time.Second
	// noticeTimeout is how late a lost unit may be noticed.
	noticeTimeout = time.Second
	// closeTimeout bounds what is recorded at the end.
	closeTimeout = 30 * time.Second
)

// daemon is one run of the program: one life after another, each ended by a
// reset but the last.
type daemon struct {
	options
	log     *slog.Logger
	stdout  io.Writer
	version string
}

func (d *daemon) run(ctx context.Context) error {
	for {
		again, err := d.life(ctx)
		if err != nil || !again {
			return err
		}
		d.log.Info("starting anew")
	}
}

// life is everything from an empty process to the end or a reset, or until the
// unit goes away in the middle of the start. Things are closed in the reverse
// order of their making.
func (d *daemon) life(ctx context.Context) (again bool, err error) {
	s := &stage{daemon: d, started: time.Now(), reset: make(chan struct{}, 1)}
	defer func() { err = errors.Join(err, s.unwind()) }()
	if err = s.open(ctx); err == nil {
		again, err = s.serve(ctx)
	}
	if err != nil && !s.ready && ctx.Err() == nil && s.interrupted(err) {
		s.log.Warn("the unit went away during the start", "err", err)
		return true, nil
	}
	if err != nil && !s.ready && ctx.Err() != nil { // told to end, which is no failure
		s.log.Info("ended during the start", "while", err)
		return false, nil
	}
	return again, err
}

// stage is what one life is made of.
type stage struct {
	*daemon
	started time.Time
	reset   chan struct{}
	undo    []func() error

	id       hsmapi.Identity
	unit     *unit.Unit
	ledger   *ledger.Ledger
	claim    *registry.Ownership
	audit    *platform.Log
	licences *platform.Licences
	clients  *platform.Clients
	dflt     network.Network
	network  network.Network
	launcher *launch.Launcher
	platform *platform.Platform
	metrics  *metrics
	rebooted bool
	ready    bool
	lost     bool // another orchestrator has the unit
}

func (s *stage) later(fn func() error) { s.undo = append(s.undo, fn) }

func (s *stage) unwind() error {
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i]())
	}
	return errors.Join(errs...)
}

func (s *stage) open(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		s.openLedger, s.openUnit, s.openRegistry, s.openPlatformState, s.openNetwork, s.openLauncher, s.openPlatform, s.openMetrics,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) openLedger(context.Context) (err error) {
	if s.ledger, err = ledger.Open(s.state); err != nil {
		return err
	}
	s.later(s.ledger.Close)
	return nil
}

// openUnit connects. An hsmd that was killed has left its socket and is about to
// be started again; a socket that is missing for long is a wrong path.
func (s *stage) openUnit(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		if s.unit, s.id, err = unit.Connect(ctx, s.hsmSocket, s.log); err == nil {
			s.later(s.unit.Close)
			return nil
		}
		missing := errors.Is(err, unix.ENOENT) && time.Since(s.started) > missingTimeout
		if missing || !errkind.Is(err, errkind.Unavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(connectPause):
		}
	}
}

// interrupted reports whether err is because the unit went away, so that the same
// steps can succeed once it is back.
func (s *stage) interrupted(err error) bool {
	if s.unit == nil || !errkind.Is(err, errkind.Unavailable) {
		return false
	}
	// A call may know of it before the connection's keeper does.
	for end := time.Now().Add(noticeTimeout); ; time.Sleep(10 * time.Millisecond) {
		if epoch, here := s.unit.Epoch(); epoch > 1 || !here {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// openRegistry connects, claims the unit and learns how the last run ended.
func (s *stage) openRegistry(ctx context.Context) error {
	client, closeClient, err := s.connectEtcd(ctx)
	if err != nil {
		return err
	}
	s.later(closeClient)
	run, err := s.noteRun(ctx)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	s.claim, _, err = registry.Acquire(ctx, client, s.id.ESN, registry.Claim{
		Owner: run.Owner, Host: host, Boot: run.Boot, Since: s.started.UTC(),
	}, s.log)
	if err != nil {
		return err
	}
	s.later(func() error {
		if s.lost {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return s.claim.Release(ctx)
	})
	return nil
}

// noteRun tells a crash of the program alone, after which everything goes on,
// from a shutdown or a reboot of the host.
func (s *stage) noteRun(ctx context.Context) (run ledger.Run, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return run, errkind.Errorf(errkind.Unavailable, "boot id: %w", err)
	}
	now := strings.TrimSpace(string(boot))
	err = s.ledger.View(func(tx ledger.Tx) (err error) {
		run, err = tx.Run()
		return err
	})
	if err != nil {
		return run, err
	}
	s.rebooted = !run.Serving || run.Boot != now
	if run.Owner == "" {
		run.Owner = uuid.NewString()
	}
	run.Boot = now
	return run, s.ledger.Update(ctx, func(tx ledger.Tx) error { return tx.SetRun(run) })
}

// setServing is the mark by which noteRun tells.
func (s *stage) setServing(ctx context.Context, serving bool) error {
	return s.ledger.Update(ctx, func(tx ledger.Tx) error {
		run, err := tx.Run()
		if err != nil {
			return err
		}
		run.Serving = serving
		return tx.SetRun(run)
	})
}

func (s *stage) openPlatformState(ctx context.Context) (err error) {
	if s.audit, err = platform.OpenLog(ctx, s.ledger, s.unit, s.id, s.log); err != nil {
		return err
	}
	s.later(func() error { s.audit.Close(); return nil })
	if s.licences, err = platform.OpenLicences(s.ledger, s.id); err != nil {
		return err
	}
	s.clients, err = platform.OpenClients(s.ledger)
	return err
}

func (s *stage) openNetwork(context.Context) (err error) {
	if s.dflt, err = network.DefaultNetwork(s.daemon.options.network, s.id.ESN); err != nil {
		return err
	}
	var stored ledger.Networks
	err = s.ledger.View(func(tx ledger.Tx) (err error) {
		stored, err = tx.Networks()
		return err
	})
	if err != nil {
		return err
	}
	s.network, err = network.Open(stored.Current, s.dflt)
	return err
}

func (s *stage) openLauncher(context.Context) (err error) {
	groups, err := launch.FindCgroups("tesserae-" + strings.ToLower(s.id.ESN))
	if err != nil {
		s.log.Info("no control groups; VCMs are bounded by their own limits only", "err", err)
	}
	base := s.uidBase
	if base == 0 {
		base = uidBase(s.id.ESN)
	}
	s.launcher, err = launch.New(launch.Config{Path: s.vcmd, Floor: s.floor, UIDBase: base, Cgroups: groups, Forker: "/proc/self/exe", Log: s.log})
	if err != nil {
		return err
	}
	s.later(s.launcher.Close)
	return nil
}

// uidBase spreads units over a range of uids that hosts do not give to people
// or services.
func uidBase(esn string) int {
	h := uint32(2166136261)
	for _, c := range []byte(esn) {
		h = (h ^ uint32(c)) * 16777619
	}
	return 1_879_100_000 + int(h%100_000)*2048
}

func (s *stage) openPlatform(ctx context.Context) (err error) {
	s.platform, err = platform.Open(ctx, platform.Config{
		Identity: s.id, Unit: s.unit, Ledger: s.ledger, Licences: s.licences, Clients: s.clients, Audit: s.audit,
		Network: s.network, Default: s.dflt, Listen: s.listen, Version: s.version, Started: s.started, Log: s.log,
		Enrolled: func() {
			if err := s.writeUnitFile(); err != nil {
				s.log.Error("unit file not renewed", "err", err)
			}
		},
		Reset: func() {
			select {
			case s.reset <- struct{}{}:
			default: // asked for already
			}
		},
		Usage: usage,
	})
	if err == nil {
		s.later(func() error { s.platform.Close(); return nil })
	}
	return err
}

func (s *stage) openMetrics(ctx context.Context) (err error) {
	s.metrics, err = listenMetrics(ctx, s.options.metrics)
	if err == nil {
		s.later(s.metrics.close)
	}
	return err
}

// serve hosts the VCMs until the end.
func (s *stage) serve(ctx context.Context) (again bool, err error) {
	policy := launch.DefaultPolicy()
	policy.Again = s.options.pause
	host, err := hosting.Open(ctx, hosting.Config{
		Identity: s.id, Unit: s.unit, VCMs: registry.NewEtcd(s.claim), Launcher: s.launcher, Policy: policy,
		Network: s.network, DataDir: filepath.Join(s.state, "vcms"), Entitlement: s.licences.Entitlement, Audit: s.audit.Append,
		File: func(ctx context.Context, r lifecycle.Record) ([]byte, error) {
			return platform.VCMFile(ctx, s.unit, s.id, r)
		},
		Log: s.log, LogLevel: s.logLevel,
	}, s.rebooted)
	if err != nil {
		return false, err
	}
	// Not before the VCMs are as a shutdown leaves them: a start that fails until
	// here is one after a shutdown again.
	if err := s.setServing(ctx, true); err != nil {
		return false, errors.Join(err, s.closeHost(host))
	}
	// Before the services answer: who waited for them reads it next.
	if err := s.writeUnitFile(); err != nil {
		return false, errors.Join(err, s.closeHost(host))
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.platform.Serve(run, host) }()
	s.metrics.serve(host, s.unit)
	s.sayReady()
	s.ready = true
	again, err = s.wait(ctx, ended)
	cancel()
	err = errors.Join(err, drain(ended))
	return again, errors.Join(err, s.closeHost(host))
}

// wait returns why the life ends. A service's error is put back for drain.
func (s *stage) wait(ctx context.Context, ended chan error) (again bool, err error) {
	select {
	case <-ctx.Done():
		return false, nil
	case <-s.reset:
		return true, nil
	case <-s.claim.Lost():
		s.lost = true
		return false, errkind.Errorf(errkind.Unavailable, "another orchestrator has taken unit %s over", s.id.ESN)
	case err := <-ended:
		ended <- err
		return false, nil
	}
}

func drain(ended <-chan error) error { return <-ended }

func (s *stage) closeHost(host *hosting.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	host.Close(ctx)
	return s.setServing(ctx, false)
}

func (s *stage) unitFile() string { return filepath.Join(s.state, unitfile.Name) }

func (s *stage) writeUnitFile() error {
	u := unitfile.Unit{
		ESN: s.id.ESN, ModuleID: s.id.ModuleID, UnitKey: s.id.UnitKey, Warrant: s.id.Warrant,
		Services: s.platform.Addresses(), Written: time.Now().UTC(),
	}
	if path, factory := s.clients.Factory(); factory {
		u.FactoryKey = path
	}
	return unitfile.Write(s.unitFile(), u)
}

// sayReady is the line that scripts wait for.
func (s *stage) sayReady() {
	fmt.Fprintf(s.stdout, "orchestratord: ready esn=%s unit=%s metrics=%s pid=%d\n", s.id.ESN, s.unitFile(), s.metrics.address(), os.Getpid())
}
