package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/orchestrator/platform"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
)

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
	orderly  bool // it ends because somebody wants it to, and with it every VCM
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
	s.launcher, err = launch.New(launch.Config{
		Path: s.vcmd, Floor: s.floor, UIDBase: base, Cgroups: groups, Log: s.log,
		Forker: "/proc/self/exe", Dir: s.state, Fence: s.claim.Fence(), Grace: s.grace,
	})
	if err != nil {
		return err
	}
	s.later(func() error {
		if s.orderly {
			return s.launcher.Close()
		}
		return s.launcher.Leave() // VCMs are not to suffer from what happens to us
	})
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
