package main

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

func TestLifeOfAVCM(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.launch()
	ready := p.mustBeReady()
	if len(ready.ModuleID) != 8 {
		t.Errorf("ready: %+v", ready)
	}

	watcher := newKey(t)
	if _, err := r.dial(vcmcontrol.ServiceMonitor, watcher); err == nil {
		t.Error("monitor has no client key, and let one in")
	}
	admin := sshadmin.NewSshAdminClient(r.mustDial(vcmcontrol.ServiceSSHAdmin, r.admin).Thrift())
	keys, err := admin.InstallKeys(t.Context(), []*sshadmin.ClientKey{{ServiceName: vcmcontrol.ServiceMonitor, ClientKey: keyLine(watcher.PublicKey())}})
	if err != nil || len(keys) != 4 {
		t.Fatalf("install: %d keys, %v", len(keys), err)
	}
	for _, k := range keys {
		if k.Address != r.address(k.ServiceName) || !strings.HasPrefix(k.HostKey, "ssh-ed25519-cert-v01@openssh.com ") {
			t.Errorf("service key %+v", k)
		}
	}

	mon := monitor.NewMonitorClient(r.mustDial(vcmcontrol.ServiceMonitor, watcher).Thrift())
	env, err := mon.EnvStats(t.Context())
	if err != nil || env.MemUsed <= 0 || env.DiskUsed <= 0 || time.Since(time.Unix(env.SystemTime, 0)).Abs() > time.Minute {
		t.Errorf("env stats %+v, %v", env, err)
	}
	r.checkLog(mon, "vcm.start", "ssh.key.install")

	var stats vcmcontrol.Stats
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodStats, nil, &stats); err != nil || stats.Memory <= 0 || stats.DiskUsed <= 0 || stats.ReadOnly {
		t.Errorf("stats %+v, %v", stats, err)
	}
	var mode vcmcontrol.Mode
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodMode, nil, &mode); err != nil || mode.Operational {
		t.Errorf("mode %+v, %v: no key is loaded", mode, err)
	}
	before := r.serverCertificate()
	p.stop(vcmcontrol.Stop{Drain: 2000})

	p = r.launch()
	if again := p.mustBeReady(); again.ModuleID != ready.ModuleID {
		t.Errorf("module %s after a restart, %s before", again.ModuleID, ready.ModuleID)
	}
	r.mustDial(vcmcontrol.ServiceMonitor, watcher) // the installed key is still there
	if after := r.serverCertificate(); !after.Equal(before) {
		t.Error("the TLS certificate changed with a restart")
	}
	p.kill()

	p = r.launch()
	p.mustBeReady()
	r.mustDial(vcmcontrol.ServiceMonitor, watcher)
	p.stop(vcmcontrol.Stop{Drain: 2000})
}

// logKey is the audit log's key, which the unit certifies.
func (r *rig) logKey(mon *monitor.MonitorClient) ed25519.PublicKey {
	t := r.t
	t.Helper()
	line, err := mon.LogKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.unit.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unitKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(id.UnitKey))
	if err != nil {
		t.Fatal(err)
	}
	key, err := auditlog.CertifiedKey(line, unitKey, hsmapi.Principal(testESN, testUUID, serviceAuditLog))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// checkLog exports the log through the service and verifies it with nothing but
// the unit's key.
func (r *rig) checkLog(mon *monitor.MonitorClient, kinds ...string) {
	t := r.t
	t.Helper()
	key := r.logKey(mon)
	export, err := mon.LogExport(t.Context(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	v, err := auditlog.Verify(export.Text, key)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, rec := range v.Records {
		found[rec.Kind] = true
	}
	for _, kind := range kinds {
		if !found[kind] {
			t.Errorf("the log has no %s entry:\n%s", kind, export.Text)
		}
	}
	if _, err := mon.LogExpire(t.Context(), export.LastSeq+1); !errkind.Is(err, errkind.Refused) {
		t.Errorf("expire of what was not exported: %v", err)
	}
	n, err := mon.LogExpire(t.Context(), export.LastSeq)
	if err != nil || n != int64(len(v.Records)) {
		t.Errorf("expire removed %d of %d, %v", n, len(v.Records), err)
	}
	next, err := mon.LogExport(t.Context(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	w, err := auditlog.Verify(next.Text, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Follows(v); err != nil {
		t.Error(err)
	}
}

// serverCertificate is what the token service shows, checked for its address.
func (r *rig) serverCertificate() *x509.Certificate {
	t := r.t
	t.Helper()
	address := r.address(vcmcontrol.ServiceTokenAPI)
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // checked below
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cert := c.ConnectionState().PeerCertificates[0]
	if err := cert.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	return cert
}

// Nobody else holds the orchestrator's end of the control socket here.
func TestAVCMEndsWithItsOrchestrator(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.launch()
	p.mustBeReady()
	_ = p.conn.Close()
	if code := p.waitExit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// An orchestrator that is killed hears nothing and says nothing; the next one takes
// its end of the socket over.
func TestAVCMServesOnForTheNextOrchestrator(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.spawn()
	kept := p.keep()
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodStart, r.start, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.conn.Ask(t.Context(), vcmcontrol.MethodHello, nil, nil); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("greeted before it serves: %v", err)
	}
	_ = p.conn.Close() // before or after it was told that the VCM is ready
	next := p.takeOver(kept, 1<<28)
	var ready vcmcontrol.Ready
	var files []*os.File
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if files, err = next.Call(t.Context(), vcmcontrol.MethodHello, nil, &ready); err == nil {
			break
		}
		if !errkind.Is(err, errkind.Unavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if len(ready.ModuleID) != 8 || len(files) != len(r.listeners) {
		t.Fatalf("%+v, %d listeners", ready, len(files))
	}
	for i, f := range files {
		l, err := net.FileListener(f)
		if err != nil || l.Addr().String() != r.listeners[i].Address {
			t.Errorf("%s: %v, %v", r.listeners[i].Service, l, err)
			continue
		}
		l.Close()
		f.Close()
	}
	var stats vcmcontrol.Stats
	if err := next.Ask(t.Context(), vcmcontrol.MethodStats, nil, &stats); err != nil || stats.Memory <= 0 {
		t.Errorf("%+v, %v", stats, err)
	}
	r.mustDial(vcmcontrol.ServiceSSHAdmin, r.admin)
	if err := next.Ask(t.Context(), vcmcontrol.MethodStart, r.start, nil); !errkind.Is(err, errkind.Mode) {
		t.Errorf("started again: %v", err)
	}
	for range 2 { // one of them may be of an orchestrator that was killed
		if err := next.Ask(t.Context(), vcmcontrol.MethodStop, vcmcontrol.Stop{Drain: 500}, nil); err != nil && !errkind.Is(err, errkind.Unavailable) {
			t.Errorf("stop: %v", err)
		}
	}
	if code := p.waitExit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The orchestrator starts it again, with a new channel, once the unit is back.
func TestAVCMEndsWithItsUnit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.launch()
	p.mustBeReady()
	r.stopUnit()
	if code := p.waitExit(); code != errkind.Unavailable.ExitCode() {
		t.Errorf("exit code %d", code)
	}
}

// However full its disk is, a VCM starts, so that its log can be taken away.
func TestAFullVCMStartsAndSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.launch().mustBeReadyAndStop()
	r.fillStore()
	p := r.launch()
	p.mustBeReady()
	var stats vcmcontrol.Stats
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodStats, nil, &stats); err != nil || !stats.ReadOnly {
		t.Errorf("stats %+v, %v", stats, err)
	}
	r.mustDial(vcmcontrol.ServiceSSHAdmin, r.admin)
	p.stop(vcmcontrol.Stop{Drain: 2000})
}

func TestARolledBackStoreDoesNotStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.launch().mustBeReadyAndStop()
	old := r.copyData()
	r.launch().mustBeReadyAndStop()
	r.restoreData(old)
	f := r.launch().mustFail()
	if f.Kind != errkind.Integrity.String() || !f.Final || !strings.Contains(f.Reason, "rolled back") {
		t.Errorf("%+v", f)
	}
}

func TestAWrongPartitionDoesNotStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start.UUID = "00000000-0000-4000-8000-000000000000"
	if f := r.launch().mustFail(); f.Kind != errkind.Integrity.String() {
		t.Errorf("%+v", f)
	}
}
