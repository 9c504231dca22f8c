package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	monitorservice "github.com/tesserae-hsm/tesserae/vcm/services/monitor"
	sshadminservice "github.com/tesserae-hsm/tesserae/vcm/services/sshadmin"
	"github.com/tesserae-hsm/tesserae/vcm/services/tokenadmin"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// sshService is what runs in the sessions of one SSH service: calls, or for the
// Conductor a stream of its own.
type sshService struct {
	calls  func(sshrpc.Session) thrift.TProcessor
	stream func(ctx context.Context, s sshrpc.Session, stream io.ReadWriteCloser) error
}

func sshNames() []string {
	return []string{vcmcontrol.ServiceSSHAdmin, vcmcontrol.ServiceMonitor, vcmcontrol.ServicePrismToken, vcmcontrol.ServiceConductor}
}

// sshListeners are the SSH services that have a listener.
func sshListeners(ls []vcmcontrol.Listener) (names []string) {
	for _, l := range ls {
		if slices.Contains(sshNames(), l.Service) {
			names = append(names, l.Service)
		}
	}
	return names
}

// serve opens every listener. Those this program has nothing for are answered
// by closing, so that clients do not wait.
func (m *module) serve(ctx context.Context, log *slog.Logger) error {
	keys, err := m.clientKeys(ctx)
	if err != nil {
		return err
	}
	offered := m.sshServices(keys, log)
	for _, l := range m.start.Listeners {
		nl, err := inheritedListener(l)
		if err != nil {
			return err
		}
		m.listeners = append(m.listeners, nl)
		nl = busy{nl, m.procs}
		service, log := l.Service, log.With("listener", l.Service)
		if s, ok := offered[service]; ok {
			cfg := sshrpc.ServerConfig{
				Service: service, HostKey: m.hosts[service], Authorised: keys.Authorised(service), Processor: s.calls, Raw: s.stream, Log: log,
			}
			m.services.serve(service, func(ctx context.Context) error { return sshrpc.Serve(ctx, nl, cfg) })
			continue
		}
		m.services.serve(service, m.direct(service, nl, log))
	}
	return nil
}

// direct serves a listener that is not SSH.
func (m *module) direct(service string, l net.Listener, log *slog.Logger) func(context.Context) error {
	if serve := takenOver(m, service, l); serve != nil {
		return serve
	}
	switch service {
	case vcmcontrol.ServiceTokenAPI:
		return func(ctx context.Context) error { return m.tokens.Serve(ctx, l) }
	case vcmcontrol.ServiceSMAPI:
		return func(ctx context.Context) error { return m.conductor.Serve(ctx, l) }
	default:
		log.Warn("this VCM does not offer the service")
		return func(ctx context.Context) error { return decline(ctx, l) }
	}
}

// sshServices are the SSH services, as sshNames lists them.
func (m *module) sshServices(keys *sshadminservice.Keys, log *slog.Logger) map[string]sshService {
	watch := monitorservice.New(monitorservice.Config{
		Store: m.store, Log: m.log, Clock: m.clock, Started: m.began, Usage: m.usage,
		Bucket: func(tx *store.Tx) *store.Bucket { return tx.Bucket(bucketAudit) },
	})
	admin := tokenadmin.New(tokenadmin.Config{
		Accounts: m.accounts, Keys: m.keys, POS: m.pos, Module: m.tsm, Dashboard: m.dashboard, Certificate: m.cert, Maintenance: m.mode, Speed: m.tokenGate(),
		Address: m.address(vcmcontrol.ServiceTokenAPI), Attest: m.attest,
		Conductor: m.conductor, ConductorAddress: m.address(vcmcontrol.ServiceSMAPI), Log: log,
	})
	return map[string]sshService{
		vcmcontrol.ServiceSSHAdmin: {calls: func(s sshrpc.Session) thrift.TProcessor {
			return sshadmin.NewSshAdminProcessor(keys.Handler(actor(s).String()))
		}},
		vcmcontrol.ServiceMonitor: {calls: func(s sshrpc.Session) thrift.TProcessor {
			return monitor.NewMonitorProcessor(watch.Handler(actor(s).String()))
		}},
		vcmcontrol.ServicePrismToken: {calls: func(s sshrpc.Session) thrift.TProcessor {
			return prismadmin.NewPrismAdminProcessor(admin.Handler(actor(s)))
		}},
		vcmcontrol.ServiceConductor: {stream: func(ctx context.Context, s sshrpc.Session, stream io.ReadWriteCloser) error {
			return m.conductor.Stream(ctx, actor(s).String(), stream)
		}},
	}
}

// clientKeys knows who may use the SSH services.
func (m *module) clientKeys(ctx context.Context) (*sshadminservice.Keys, error) {
	var services []sshadminservice.Service
	for _, l := range m.start.Listeners {
		if host := m.hosts[l.Service]; host != nil {
			services = append(services, sshadminservice.Service{Name: l.Service, Address: l.Address, HostKey: keyLine(host.PublicKey())})
		}
	}
	return sshadminservice.Open(ctx, sshadminservice.Config{
		Store: m.store, Audit: m.audit, Clock: m.clock, Services: services, InitialKey: m.start.SSHAdminKey,
	})
}

// actor is who holds a session, for the audit log.
func actor(s sshrpc.Session) accounts.Actor {
	a := accounts.Actor{Realm: "ssh", Name: s.Service + " " + ssh.FingerprintSHA256(s.Key)}
	if s.Remote != nil {
		a.Address = s.Remote.String()
	}
	return a
}

// decline closes every connection.
func decline(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		_ = c.Close()
	}
}
