package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/apache/thrift/lib/go/thrift"

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
	"golang.org/x/crypto/ssh"
)

// serve opens every listener. Those this program has nothing for are answered
// by closing, so that clients do not wait.
func (m *module) serve(ctx context.Context, log *slog.Logger) error {
	processors := m.processors(log)
	var names []string
	for _, l := range m.start.Listeners {
		if processors[l.Service] != nil {
			names = append(names, l.Service)
		}
	}
	hosts, err := hostKeys(ctx, m.partition, names)
	if err != nil {
		return err
	}
	clients, err := m.clientKeys(ctx, hosts)
	if err != nil {
		return err
	}
	processors[vcmcontrol.ServiceSSHAdmin] = func(s sshrpc.Session) thrift.TProcessor {
		return sshadmin.NewSshAdminProcessor(clients.Handler(actor(s).String()))
	}
	for _, l := range m.start.Listeners {
		nl, err := inheritedListener(l)
		if err != nil {
			return err
		}
		service, log := l.Service, log.With("service", l.Service)
		switch {
		case processors[service] != nil:
			cfg := sshrpc.ServerConfig{
				Service: service, HostKey: hosts[service], Authorised: clients.Authorised(service), Processor: processors[service], Log: log,
			}
			m.services.serve(service, func(ctx context.Context) error { return sshrpc.Serve(ctx, nl, cfg) })
		case service == vcmcontrol.ServiceTokenAPI:
			m.services.serve(service, func(ctx context.Context) error { return m.tokens.Serve(ctx, nl) })
		default:
			log.Warn("this VCM does not offer the service")
			m.services.serve(service, func(ctx context.Context) error { return decline(ctx, nl) })
		}
	}
	return nil
}

// processors are the SSH services by name; sshadmin's is made by serve.
func (m *module) processors(log *slog.Logger) map[string]func(sshrpc.Session) thrift.TProcessor {
	watch := monitorservice.New(monitorservice.Config{
		Store: m.store, Log: m.log, Clock: m.clock, Started: m.began, Usage: m.usage,
		Bucket: func(tx *store.Tx) *store.Bucket { return tx.Bucket(bucketAudit) },
	})
	admin := tokenadmin.New(tokenadmin.Config{
		Accounts: m.accounts, Keys: m.keys, POS: m.pos, Module: m.tsm, Dashboard: m.dashboard, Certificate: m.cert,
		Address: m.address(vcmcontrol.ServiceTokenAPI), Log: log,
	})
	return map[string]func(sshrpc.Session) thrift.TProcessor{
		vcmcontrol.ServiceSSHAdmin: func(sshrpc.Session) thrift.TProcessor { return nil },
		vcmcontrol.ServiceMonitor: func(s sshrpc.Session) thrift.TProcessor {
			return monitor.NewMonitorProcessor(watch.Handler(actor(s).String()))
		},
		vcmcontrol.ServicePrismToken: func(s sshrpc.Session) thrift.TProcessor {
			return prismadmin.NewPrismAdminProcessor(admin.Handler(actor(s)))
		},
	}
}

// clientKeys knows who may use the SSH services.
func (m *module) clientKeys(ctx context.Context, hosts map[string]ssh.Signer) (*sshadminservice.Keys, error) {
	var services []sshadminservice.Service
	for _, l := range m.start.Listeners {
		if host := hosts[l.Service]; host != nil {
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
