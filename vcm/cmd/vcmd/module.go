package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
	"github.com/tesserae-hsm/tesserae/vcm/maintenance"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/servercert"
	"github.com/tesserae-hsm/tesserae/vcm/sandbox"
	"github.com/tesserae-hsm/tesserae/vcm/speed"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// module is the virtual module: its partition, its security module, what is
// built on them and the services that are open to the tenant.
type module struct {
	start vcmcontrol.Start
	door  *sandbox.Door
	ready vcmcontrol.Ready
	procs *processors
	began time.Time // by the module's clock

	*partition
	tsm       *tsm.Module
	accounts  *accounts.Accounts
	keys      *keystore.Keystore
	pos       *pos.Service
	cert      *servercert.Certificate
	dashboard *dashboard.Dashboard
	tokens    *prismtoken.Server
	conductor *conductor.Server
	speed     *speed.Limiter
	mode      *maintenance.Mode

	listeners []net.Listener // in the order of start's
	services  *group
}

// assemble enters the sandbox, opens the partition and builds everything on it,
// from the inside out. When it returns, every listener is being served.
func assemble(ctx context.Context, start vcmcontrol.Start, door *sandbox.Door, procs *processors, log *slog.Logger) (_ *module, err error) {
	began := time.Now()
	stage := func(name string) { log.Debug("start", "done", name, "after", time.Since(began)) }
	tuneMemory(start.MemoryLimit)
	dir := os.NewFile(vcmcontrol.DataDirFD, "data")
	if _, err = door.Enter(sandbox.Config{DataDir: dir, Listeners: descriptors(start.Listeners), Isolation: start.Isolation, DiskQuota: start.DiskQuota, Memory: start.MemoryLimit}); err != nil {
		return nil, err
	}
	stage("sandbox")
	m := &module{start: start, door: door, procs: procs}
	if m.partition, err = openPartition(ctx, start, dir, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.partition.close(log)
		}
	}()
	report, err := door.Settle(dir)
	if err != nil {
		return nil, err
	}
	stage("partition")
	m.began = m.clock.Now()
	m.ready = vcmcontrol.Ready{ModuleID: m.opened.ModuleID, Level: report.Level, Controls: report.Controls, Started: m.began, TestMode: m.opened.TestMode}
	if err := m.noteStart(ctx, log); err != nil {
		return nil, err
	}
	if err := m.build(ctx, log); err != nil {
		return nil, err
	}
	if err := m.store.Settle(ctx); err != nil { // nobody knows of a new VCM yet
		return nil, err
	}
	stage("token service")
	m.services = newGroup(log)
	if err := m.serve(ctx, log); err != nil {
		m.services.stop(defaultDrain)
		return nil, err
	}
	stage("listeners")
	m.services.run("log checkpoints", m.checkpoints)
	m.services.run("clock", m.followClock)
	m.services.run("compaction", m.pos.Run)
	m.services.run("memory", collectLate)
	m.services.run("speed", m.speed.Run)
	return m, nil
}

// noteStart writes the isolation report to the audit log. A VCM whose disk is
// full to the last byte starts all the same: how else could its log be exported
// and expired.
func (m *module) noteStart(ctx context.Context, log *slog.Logger) error {
	detail := map[string]string{"level": m.ready.Level, "module": m.opened.ModuleID, "name": m.start.Name}
	for _, c := range m.ready.Controls {
		detail["isolation."+c.Control] = c.Got
	}
	err := m.store.Shrink(ctx, func(tx *store.Tx) error {
		return m.audit(tx, auditlog.Entry{Time: m.began, Kind: "vcm.start", Actor: "unit", Subject: m.start.UUID, Detail: detail})
	})
	if errkind.Is(err, errkind.Limit) {
		log.Error("the start is not in the audit log", "err", err)
		return nil
	}
	return err
}

// tidWindow is how far a token identifier may be from the module's clock: as
// wide as on the product, because a meter that is vended to many times in a
// minute takes its identifiers from the minutes ahead.
const tidWindow = 7 * 24 * time.Hour

// vault is the security module's part of the store.
type vault struct{ store *store.Store }

func (v vault) View(ctx context.Context, fn func(tsm.Tx) error) error {
	return v.store.View(ctx, func(tx *store.Tx) error { return fn(tx.Bucket(bucketModule)) })
}

func (v vault) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	return v.store.Update(ctx, func(tx *store.Tx) error { return fn(tx.Bucket(bucketModule)) })
}

// transaction is the store's transaction that a tsm.Tx belongs to.
func transaction(tx tsm.Tx) (*store.Tx, error) {
	b, ok := tx.(*store.Bucket)
	if !ok {
		return nil, errkind.Errorf(errkind.Internal, "the security module was given a %T instead of a bucket of the store", tx)
	}
	return b.Tx(), nil
}

func (m *module) openTSM(ctx context.Context) (err error) {
	m.tsm, err = tsm.Open(ctx, tsm.Config{
		Vault:      vault{m.store},
		ModuleID:   m.opened.ModuleID,
		FirmwareID: m.opened.Identity.FirmwareID,
		HardwareID: m.opened.Identity.HardwareID,
		Created:    m.opened.Created,
		Clock:      m.clock,
		TestMode:   m.opened.TestMode,
		Window:     tidWindow,

		FindInstructionKey: m.transactionKey,
		Audit: func(tx tsm.Tx, e tsm.Event) error {
			t, err := transaction(tx)
			if err != nil {
				return err
			}
			return m.audit(t, auditlog.Entry(e))
		},
		AuditEntry: m.auditEntry,
	})
	return err
}

// auditEntry reads entry n of the log, counted from 1 as SM?QL does.
func (m *module) auditEntry(tx tsm.Tx, n uint64) (tsm.Entry, bool, error) {
	t, err := transaction(tx)
	if err != nil || n == 0 {
		return tsm.Entry{}, false, err
	}
	r, err := m.log.Entry(t.Bucket(bucketAudit), n-1)
	switch {
	case errkind.Is(err, errkind.NotFound):
		return tsm.Entry{}, false, nil
	case err != nil:
		return tsm.Entry{}, false, err
	}
	line, err := r.Marshal()
	return tsm.Entry{Time: r.Time, Text: string(line)}, true, err
}

// build makes the token service. Order: each part gets those it stands on.
func (m *module) build(ctx context.Context, log *slog.Logger) (err error) {
	if err = m.openTSM(ctx); err != nil {
		return err
	}
	if why := m.tsm.Failure(); why != "" {
		log.Error("a self-test of the security module failed, it issues no tokens", "why", why)
	}
	if m.accounts, err = accounts.New(ctx, accounts.Config{Store: m.store, Audit: m.audit, Clock: m.clock, Log: log}); err != nil {
		return err
	}
	prefs := m.accounts.Preferences()
	m.keys, err = keystore.New(ctx, keystore.Config{
		Store: m.store, Module: m.tsm, ModuleBucket: bucketModule, Preferences: prefs, Audit: m.audit, Clock: m.clock, Log: log,
	})
	if err != nil {
		return err
	}
	m.pos, err = pos.New(pos.Config{
		Store: m.store, Module: m.tsm, ModuleBucket: bucketModule, Keys: m.keys, Preferences: prefs, Clock: m.clock,
		FirmwareID: m.opened.Identity.FirmwareID, TestMode: m.opened.TestMode, Audit: m.audit, Log: log,
	})
	if err != nil {
		return err
	}
	address := m.address(vcmcontrol.ServiceTokenAPI)
	host, _, _ := net.SplitHostPort(address) // "" gives a certificate without the address
	if host == "" {
		host = m.start.Name
	}
	m.cert, err = servercert.Open(ctx, servercert.Config{
		Store: m.store, Audit: m.audit, Preferences: prefs, Clock: m.clock, Names: []string{host}, Log: log,
	})
	if err != nil {
		return err
	}
	m.dashboard = dashboard.New(dashboard.Config{
		Store: m.store, Module: m.tsm, ModuleBucket: bucketModule, Keys: m.keys, Accounts: m.accounts, CertificateExpires: m.cert.Expires,
		Host: clock.System(), Quota: m.start.DiskQuota, Address: address, SerialNumber: m.opened.Identity.ESN, UID: m.start.UUID,
		TPS: tps(m.opened.Speed), Operations: m.operations,
	})
	m.speed = speed.New(m.unit, m.opened.Speed.Ceiling, speed.DefaultPatience)
	if m.mode, err = maintenance.Open(ctx, maintenance.Config{Store: m.store, Audit: m.audit, Clock: m.clock}); err != nil {
		return err
	}
	m.tokens, err = prismtoken.NewServer(prismtoken.Config{
		Accounts: m.accounts, POS: m.pos, Dashboard: m.dashboard, Module: m.tsm, Speed: m.tokenGate(),
		Certificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return m.cert.Get(hello) },
		Clock:       m.clock, Log: log,
	})
	if err != nil {
		return err
	}
	m.conductor = conductor.New(conductor.Config{
		Module: m.tsm, Speed: m.commandGate(), Clock: m.clock, Log: log,
		Live: func() conductor.Settings {
			trace, _ := conductor.ParseTraceLevel(prefs.Text(accounts.PrefConductorTrace)) // one of its choices
			return conductor.Settings{
				MaxSockets: int(prefs.Int(accounts.PrefConductorSockets)), Trace: trace,
				RawErrors: prefs.Text(accounts.PrefConductorErrors) == "Raw",
			}
		},
		AllowUnapproved: func(context.Context) bool { return prefs.Bool(accounts.PrefAllowUnapprovedKMC) },
		AuditRestart: func(ctx context.Context, by string) error {
			return m.store.Update(ctx, func(tx *store.Tx) error {
				return m.audit(tx, auditlog.Entry{Time: m.clock.Now().UTC(), Kind: "conductor.restart", Actor: by})
			})
		},
	})
	return nil
}

// tps is the most tokens a second that the VCM may issue, 0 if it is not limited.
func tps(s hsmapi.Speed) int {
	if s.Ceiling > 0 {
		return s.Ceiling
	}
	return s.Unit
}

// operations counts what the module has done since it was made: each operation
// is an entry of the audit log.
func (m *module) operations(ctx context.Context) (n uint64, err error) {
	err = m.store.View(ctx, func(tx *store.Tx) error {
		at, err := m.log.Position(tx.Bucket(bucketAudit))
		n = at.Next
		return err
	})
	return n, err
}

// address is where a service listens, "" if it does not.
func (m *module) address(service string) string {
	for _, l := range m.start.Listeners {
		if l.Service == service {
			return l.Address
		}
	}
	return ""
}

func descriptors(ls []vcmcontrol.Listener) []int {
	out := make([]int, len(ls))
	for i, l := range ls {
		out[i] = l.FD
	}
	return out
}

// operational reports whether the token service would vend now: it is not in
// maintenance mode, the security module is in order and holds a key that can.
func (m *module) operational(ctx context.Context) (yes bool, err error) {
	if m.mode.State().On || m.tsm.Failure() != "" {
		return false, nil
	}
	err = m.store.View(ctx, func(tx *store.Tx) error {
		keys, err := m.tsm.Registers(tx.Bucket(bucketModule))
		for _, k := range keys {
			yes = yes || k.VND
		}
		return err
	})
	return yes, err
}

// finalised reports whether the tenant has exported the audit log but for the
// entries that tell of the export itself.
func (m *module) finalised(ctx context.Context) (yes bool, err error) {
	const most = 16 // more than that is more than the export
	err = m.store.View(ctx, func(tx *store.Tx) error {
		b := tx.Bucket(bucketAudit)
		at, err := m.log.Position(b)
		if err != nil || at.Exported == 0 || at.Next-at.Exported > most {
			return err
		}
		for seq := at.Exported; seq < at.Next; seq++ {
			r, err := m.log.Entry(b, seq)
			if err != nil || !strings.HasPrefix(r.Kind, "log.") {
				return err
			}
		}
		yes = true
		return nil
	})
	return yes, err
}

// inheritedListener turns a descriptor into a listener.
func inheritedListener(l vcmcontrol.Listener) (net.Listener, error) {
	f := os.NewFile(uintptr(l.FD), l.Service+" "+strconv.Itoa(l.FD))
	if f == nil {
		return nil, errkind.Errorf(errkind.Invalid, "listener of %s: descriptor %d is not open", l.Service, l.FD)
	}
	defer f.Close()
	nl, err := net.FileListener(f)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "listener of %s: %w", l.Service, err)
	}
	return nl, nil
}
