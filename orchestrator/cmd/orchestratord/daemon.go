package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/platform"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
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
	defer func() {
		s.orderly = s.orderly || ctx.Err() != nil
		err = errors.Join(err, s.unwind())
	}()
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
		return false, errors.Join(err, s.endHost(ctx, host))
	}
	// Before the services answer: who waited for them reads it next.
	if err := s.writeUnitFile(); err != nil {
		return false, errors.Join(err, s.endHost(ctx, host))
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
	s.orderly = again || s.lost
	return again, errors.Join(err, s.endHost(ctx, host))
}

// endHost drains and ends the VCMs if somebody wants the end, and leaves them
// serving after a failure of ours.
func (s *stage) endHost(ctx context.Context, host *hosting.Host) error {
	if ctx.Err() == nil && !s.orderly {
		s.log.Warn("the VCMs serve on without an orchestrator")
		host.Leave()
		return nil
	}
	return s.closeHost(host)
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
