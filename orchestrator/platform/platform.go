// Package platform serves the provider's SSH services: setup, updater, monitor,
// sshadmin, orchestrator and launcher, each with its own listener, host key and
// one authorised client key.
package platform

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/launcher"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/updater"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
)

// Names of the platform's services.
const (
	ServiceOrchestrator = "orchestrator"
	ServiceSetup        = "setup"
	ServiceSSHAdmin     = "sshadmin"
	ServiceMonitor      = "monitor"
	ServiceUpdater      = "updater"
	ServiceLauncher     = "launcher"
)

// Services returns the names in the order in which they are shown.
func Services() []string {
	return []string{ServiceSetup, ServiceUpdater, ServiceMonitor, ServiceSSHAdmin, ServiceOrchestrator, ServiceLauncher}
}

// Config is what the services need.
type Config struct {
	Identity hsmapi.Identity
	Unit     *unit.Unit
	Ledger   *ledger.Ledger
	Licences *Licences
	Clients  *Clients
	Audit    *Log
	Network  network.Network // in effect
	Default  network.Network // what the default kind stands for
	Listen   string          // IP address of the services
	Version  string
	Started  time.Time
	// Enrolled is called after the factory key was replaced.
	Enrolled func()
	// Reset asks the program to start over. It must not wait for the services,
	// which answer their caller first.
	Reset func()
	// Usage is what the orchestrator's own process uses.
	Usage func() (memory int64, cpuSeconds float64)
	Log   *slog.Logger
}

// Platform is the bound services.
type Platform struct {
	cfg       Config
	host      *hosting.Host
	listeners map[string]net.Listener
	hostKeys  map[string]ssh.Signer
}

// Open makes or reads the host keys, has the unit certify them and binds the
// listeners, where they were the last time if possible.
func Open(ctx context.Context, cfg Config) (_ *Platform, err error) {
	p := &Platform{cfg: cfg, listeners: map[string]net.Listener{}, hostKeys: map[string]ssh.Signer{}}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	for _, service := range Services() {
		if p.hostKeys[service], err = p.hostKey(ctx, service); err != nil {
			return nil, err
		}
	}
	return p, p.bind(ctx)
}

// Close closes listeners that Serve has not taken over.
func (p *Platform) Close() {
	for _, l := range p.listeners {
		_ = l.Close()
	}
}

func (p *Platform) hostKey(ctx context.Context, service string) (ssh.Signer, error) {
	key, err := p.cfg.Ledger.Key("host-" + service)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "host key of %s: %w", service, err)
	}
	cert, err := certify(ctx, p.cfg.Unit, service, signer.PublicKey())
	if err != nil {
		return nil, err
	}
	out, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "host certificate of %s: %w", service, err)
	}
	return out, nil
}

// bind takes the ports of the last run, which enrolled clients know, and free
// ones where those are not to be had.
func (p *Platform) bind(ctx context.Context) error {
	var run ledger.Run
	err := p.cfg.Ledger.View(func(tx ledger.Tx) (err error) {
		run, err = tx.Run()
		return err
	})
	if err != nil {
		return err
	}
	ports := map[string]string{}
	for _, service := range Services() {
		l, err := listen(ctx, p.cfg.Listen, run.Ports[service])
		if err != nil && run.Ports[service] != "" {
			p.cfg.Log.Warn("a service moves: its port is taken", "service", service, "port", run.Ports[service])
			l, err = listen(ctx, p.cfg.Listen, "")
		}
		if err != nil {
			return errkind.Errorf(errkind.Unavailable, "listen for %s: %w", service, err)
		}
		p.listeners[service] = l
		ports[service] = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	}
	return p.cfg.Ledger.Update(ctx, func(tx ledger.Tx) error {
		run, err := tx.Run()
		if err != nil {
			return err
		}
		run.Ports = ports
		return tx.SetRun(run)
	})
}

// Addresses returns where each service listens.
func (p *Platform) Addresses() []unitfile.Service {
	var out []unitfile.Service
	for _, service := range Services() {
		out = append(out, unitfile.Service{Name: service, Address: p.listeners[service].Addr().String()})
	}
	return out
}

// Serve manages host until ctx ends and the calls in progress are answered.
func (p *Platform) Serve(ctx context.Context, host *hosting.Host) error {
	p.host = host
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var services sync.WaitGroup
	for _, service := range Services() {
		services.Go(func() {
			err := sshrpc.Serve(ctx, p.listeners[service], sshrpc.ServerConfig{
				Service:    service,
				HostKey:    p.hostKeys[service],
				Authorised: func() (ssh.PublicKey, bool) { return p.cfg.Clients.Authorised(service) },
				Processor:  func(s sshrpc.Session) thrift.TProcessor { return p.processor(service, s) },
				Log:        p.cfg.Log,
			})
			if err != nil { // one service less is a platform that cannot be managed
				cancel(errkind.Errorf(errkind.Unavailable, "service %s: %w", service, err))
			}
		})
	}
	services.Wait()
	if err := context.Cause(ctx); errkind.Is(err, errkind.Unavailable) {
		return err
	}
	return nil
}

func (p *Platform) processor(service string, s sshrpc.Session) thrift.TProcessor {
	c := call{p: p, by: hosting.Actor(service + " " + ssh.FingerprintSHA256(s.Key))}
	switch service {
	case ServiceOrchestrator:
		return orchestrator.NewOrchestratorProcessor(orchestratorService{c})
	case ServiceSetup:
		return setup.NewSetupProcessor(setupService{c})
	case ServiceSSHAdmin:
		return sshadmin.NewSshAdminProcessor(sshadminService{c})
	case ServiceMonitor:
		return monitor.NewMonitorProcessor(monitorService{c})
	case ServiceUpdater:
		return updater.NewUpdaterProcessor(updaterService{c})
	default:
		return launcher.NewLauncherProcessor(launcherService{})
	}
}

// call is one session's view of the platform.
type call struct {
	p  *Platform
	by hosting.Actor
}

// time reads both clocks.
func (c call) time(ctx context.Context) (t hsmapi.Time, err error) {
	err = c.p.cfg.Unit.Do(ctx, func(ctx context.Context, cl *hsmapi.Client) error {
		t, err = cl.Time(ctx)
		return err
	})
	return t, err
}

// entry begins an audit entry of this session, at the module's time.
func (c call) entry(ctx context.Context) (auditlog.Entry, error) {
	t, err := c.time(ctx)
	return auditlog.Entry{Time: t.Module.UTC(), Actor: string(c.by), Subject: c.p.cfg.Identity.ESN}, err
}
