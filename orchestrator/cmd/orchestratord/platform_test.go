package main

import (
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/launcher"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/updater"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/orchestrator/platform"
	"github.com/tesserae-hsm/tesserae/tenant/request"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

func ptr[T any](v T) *T { return &v }

func wantKind(t *testing.T, err error, kind errkind.Kind, text string) {
	t.Helper()
	if !errkind.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v (%v), want %q (%v)", err, errkind.Of(err), text, kind)
	}
}

func TestLicences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, s := w.orchestrator(), w.setup()
	first := w.create(o, newTenant(t), "first").Vcm.Uuid
	_, err := o.Create(t.Context(), newTenant(t).sign(t, request.Request{Kind: request.Create}), &orchestrator.CreateChoices{Name: "second"})
	wantKind(t, err, errkind.Limit, "max-active-vcms")
	w.licence("max-active-vcms", "2")
	second, third := w.create(o, newTenant(t), "second").Vcm.Uuid, w.create(o, newTenant(t), "third").Vcm.Uuid
	w.start(o, first)
	w.start(o, second)
	_, err = o.Start(t.Context(), third, nil, 10)
	wantKind(t, err, errkind.Limit, "is for 2")

	// A lower licence leaves running what runs and starts nothing more.
	w.tool("vendor", "licence", "--dir", w.path("maker"), "--esn", w.esn, "--type", "max-active-vcms", "--value", "1", "--out", w.path("low"))
	low, err := os.ReadFile(w.path("low"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.ApplyLicence(t.Context(), low)
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "2 VCMs are active and the licence is for 1") {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := o.Stop(t.Context(), first, true, 30); err != nil {
		t.Fatal(err)
	}
	_, err = o.Start(t.Context(), first, nil, 10)
	wantKind(t, err, errkind.Limit, "1 VCMs are active")

	i, err := s.Info(t.Context())
	if err != nil || i.CreatedVcms != 3 || i.ActiveVcms != 1 || i.MaxActiveVcms != 1 || i.MaxCreatableVcms != 1000 || i.Mode != "operational" || i.Esn != w.esn {
		t.Errorf("%+v %v", i, err)
	}
	_, err = s.ApplyLicence(t.Context(), []byte(strings.Replace(string(low), "Value: 1", "Value: 9", 1)))
	wantKind(t, err, errkind.Integrity, "")
	// The one that was applied last counts, also if it is an earlier one again.
	for _, file := range []struct {
		name string
		most int32
	}{{"max-active-vcms-2", 2}, {"max-active-vcms-2", 2}, {"low", 1}} {
		p, err := os.ReadFile(w.path(file.name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.ApplyLicence(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if i, err = s.Info(t.Context()); err != nil || i.MaxActiveVcms != file.most {
			t.Errorf("%s again: %+v %v", file.name, i, err)
		}
	}
	w.orch.end(syscall.SIGKILL)
	w.startOrchestrator()
	if i, err = w.setup().Info(t.Context()); err != nil || i.MaxActiveVcms != 1 {
		t.Errorf("after a restart: %+v %v", i, err)
	}
}

// Only who has the tenant's share starts a restrict-startup VCM, and nobody
// keeps it: a restart of the orchestrator needs it again.
func TestRestrictStartup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, n := w.orchestrator(), newTenant(t)
	secret, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	public, err := secret.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	file := n.sign(t, request.Request{Kind: request.Create, ShareKey: public, Properties: request.Properties{RestrictStartup: ptr(true)}})
	c, err := o.Create(t.Context(), file, &orchestrator.CreateChoices{Name: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	id := c.Vcm.Uuid
	_, err = o.Start(t.Context(), id, nil, 10)
	wantKind(t, err, errkind.Refused, "start request")

	f, err := vcmfile.Parse(c.VcmFile)
	if err != nil {
		t.Fatal(err)
	}
	wt, err := f.Verify(w.root())
	if err != nil {
		t.Fatal(err)
	}
	start := func(share tenantshare.Secret) []byte {
		now := time.Now().UTC().Truncate(time.Second)
		use := tenantshare.Use{ESN: w.esn, UUID: id, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}
		sealed, err := tenantshare.Seal(wt.EncryptionKey, share, use)
		if err != nil {
			t.Fatal(err)
		}
		return n.sign(t, request.Request{Kind: request.Start, VCM: id, Share: sealed, NotBefore: use.NotBefore, Expires: use.NotAfter})
	}
	other, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Start(t.Context(), id, start(other), 60)
	wantKind(t, err, errkind.Integrity, "the start share does not open")
	if v, err := o.Start(t.Context(), id, start(secret), 60); err != nil || v.State != "running" {
		t.Fatalf("%+v %v", v, err)
	}
	w.orch.end(syscall.SIGKILL)
	w.startOrchestrator()
	o = w.orchestrator()
	if v, err := o.Show(t.Context(), id); err != nil || v.State != "running" {
		t.Errorf("after a crash: %+v %v", v, err)
	}
	// The share is kept nowhere: the process that was taken over is the last one.
	if err := syscall.Kill(processOf(t, id), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the VCM is given up", func() bool {
		v, err := o.Show(t.Context(), id)
		return err == nil && v.State == "failed" && strings.Contains(v.Reason, "start request")
	})
	_, err = o.Start(t.Context(), id, nil, 10)
	wantKind(t, err, errkind.Refused, "start request")

	// The tenant lifts it: with the share, not without.
	bare := n.sign(t, request.Request{Kind: request.SetProperties, VCM: id, Properties: request.Properties{RestrictStartup: ptr(false)}})
	_, err = o.SetProperty(t.Context(), bare, id, "restrict_startup", "false")
	wantKind(t, err, errkind.Refused, "no share")
	now := time.Now().UTC().Truncate(time.Second)
	use := tenantshare.Use{ESN: w.esn, UUID: id, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}
	sealed, err := tenantshare.Seal(wt.EncryptionKey, secret, use)
	if err != nil {
		t.Fatal(err)
	}
	lift := n.sign(t, request.Request{Kind: request.SetProperties, VCM: id, Share: sealed, NotBefore: use.NotBefore, Expires: use.NotAfter,
		Properties: request.Properties{RestrictStartup: ptr(false), Name: ptr("free")}})
	if _, err := o.SetProperty(t.Context(), lift, id, "restrict_startup", "false"); err != nil {
		t.Fatal(err)
	}
	if v, err := o.SetProperty(t.Context(), lift, id, "name", "free"); err != nil || v.Properties.Name != "free" {
		t.Errorf("the same request again: %+v %v", v, err)
	}
	w.start(o, id)
}

func TestNetworkAndReset(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, s, n := w.orchestrator(), w.setup(), newTenant(t)
	wantKind(t, s.SetNetwork(t.Context(), &setup.Network{Kind: "ipv4static", Address: "x"}), errkind.Invalid, "CIDR")
	auto := n.sign(t, request.Request{Kind: request.Create, Properties: request.Properties{Autostart: ptr(true)}})
	c, err := o.Create(t.Context(), auto, &orchestrator.CreateChoices{Name: "auto"})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.SetNetwork(t.Context(), &setup.Network{Kind: "ipv4static", Address: "192.0.2.0/24"}), errkind.Refused, c.Vcm.Properties.IpAddress)
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "autostart after the reset", func() bool {
		c, err := w.dial(platform.ServiceOrchestrator, w.keys[platform.ServiceOrchestrator])
		if err != nil {
			return false
		}
		defer c.Close()
		list, err := orchestrator.NewOrchestratorClient(c.Thrift()).ListVcms(t.Context(), true)
		return err == nil && len(list) == 1 && list[0].State == "running"
	})
	o = w.orchestrator()
	if _, err := o.Stop(t.Context(), c.Vcm.Uuid, true, 30); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(t.Context(), c.Vcm.Uuid, true); err != nil {
		t.Fatal(err)
	}
	// A loopback network stands for a real one: its addresses are local.
	s = w.setup()
	if err := s.SetNetwork(t.Context(), &setup.Network{Kind: "ipv4static", Address: "127.99.0.0/24", Gateway: "127.99.0.1"}); err != nil {
		t.Fatal(err)
	}
	if i, err := s.Info(t.Context()); err != nil || i.Network != "127.77.0.0/16" {
		t.Errorf("before the reset: %+v %v", i, err)
	}
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new network", func() bool {
		c, err := w.dial(platform.ServiceSetup, w.keys[platform.ServiceSetup])
		if err != nil {
			return false
		}
		defer c.Close()
		i, err := setup.NewSetupClient(c.Thrift()).Info(t.Context())
		return err == nil && i.Network == "127.99.0.0/24"
	})
	o = w.orchestrator()
	_, err = o.Create(t.Context(), n.sign(t, request.Request{Kind: request.Create}), &orchestrator.CreateChoices{IpAddress: ptr("127.77.3.3")})
	wantKind(t, err, errkind.Refused, "outside the VCM network 127.99.0.0/24")
	if a := w.create(o, n, "new").Vcm.Properties.IpAddress; !strings.HasPrefix(a, "127.99.0.") || a == "127.99.0.1" {
		t.Errorf("address %s", a)
	}
}

func TestFactoryState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, s := w.orchestrator(), w.setup()
	delivered, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.licence("max-active-vcms", "3")
	w.licence("feature", "STSManufacturing")
	w.licence("speed", "HSMSpeed2")
	licensed, err := s.Info(t.Context())
	if err != nil || licensed.Features == delivered.Features || licensed.MaxActiveVcms != 3 {
		t.Fatalf("%+v %v", licensed, err)
	}
	id := w.create(o, newTenant(t), "v").Vcm.Uuid
	w.start(o, id)
	wantKind(t, s.FactoryState(t.Context()), errkind.Mode, "stop every VCM first")
	if _, err := o.Stop(t.Context(), id, true, 30); err != nil {
		t.Fatal(err)
	}
	if err := s.FactoryState(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a factory key", func() bool { return w.unit().FactoryKey != "" })
	old := w.keys[platform.ServiceOrchestrator]
	w.enrol()
	if _, err := w.dial(platform.ServiceOrchestrator, old); !errkind.Is(err, errkind.Unauthorised) {
		t.Errorf("the former key still works: %v", err)
	}
	i, err := w.setup().Info(t.Context())
	if err != nil || i.MaxActiveVcms != 1 || i.CreatedVcms != 0 {
		t.Errorf("%+v %v", i, err)
	}
	if i.Features != delivered.Features || i.Features == 0 {
		t.Errorf("the factory's features were %08x and are %08x; licensed were %08x", delivered.Features, i.Features, licensed.Features)
	}
	// The log goes on.
	if v := w.exported(); v.First != 0 || !has(v, "unit.factory-state") || !has(v, "vcm.create") {
		t.Errorf("the log begins at %d: %v", v.First, kinds(v))
	}
}

func TestKeysOfServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := sshadmin.NewSshAdminClient(w.client(platform.ServiceSSHAdmin).Thrift())
	key := func(service string, s ssh.Signer) []*sshadmin.ClientKey {
		return []*sshadmin.ClientKey{{ServiceName: service, ClientKey: request.KeyText(s.PublicKey())}}
	}
	_, err := a.InstallKeys(t.Context(), nil)
	wantKind(t, err, errkind.Invalid, "no key")
	_, err = a.InstallKeys(t.Context(), key("ncoreapi", sshrpctest.Key(t)))
	wantKind(t, err, errkind.Invalid, "no service")
	_, err = a.InstallKeys(t.Context(), key("setup", w.keys["monitor"]))
	wantKind(t, err, errkind.Refused, "share a key")
	_, err = a.InstallKeys(t.Context(), []*sshadmin.ClientKey{{ServiceName: "setup", ClientKey: "x"}})
	wantKind(t, err, errkind.Invalid, "authorized_keys")
	fresh := sshrpctest.Key(t)
	shown, err := a.InstallKeys(t.Context(), key("setup", fresh))
	if err != nil || len(shown) != len(platform.Services()) {
		t.Fatalf("%v %v", shown, err)
	}
	if _, err := w.dial("setup", w.keys["setup"]); !errkind.Is(err, errkind.Unauthorised) {
		t.Errorf("the former key: %v", err)
	}
	w.keys["setup"] = fresh
	w.setup()
	if _, err := warrant.ParseKey(shown[0].ClientKey); err != nil {
		t.Error(err)
	}
}

func TestServicesThatOnlyRefuse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := updater.NewUpdaterClient(w.client(platform.ServiceUpdater).Thrift())
	if f, err := u.Info(t.Context()); err != nil || f.FirmwareId == "" {
		t.Errorf("%+v %v", f, err)
	}
	wantKind(t, u.Upgrade(t.Context(), []byte("x")), errkind.Mode, "stop hsmd and orchestratord")
	l := launcher.NewLauncherClient(w.client(platform.ServiceLauncher).Thrift())
	wantKind(t, l.Launch(t.Context(), []byte("x")), errkind.Refused, "not supported in multi-tenant systems")
}

func TestModuleClockCountsForRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, s := w.orchestrator(), w.setup()
	file := newTenant(t).sign(t, request.Request{Kind: request.Create})
	if _, err := s.SetTime(t.Context(), time.Now().Add(2*time.Hour).Unix(), false); err != nil {
		t.Fatal(err)
	}
	_, err := o.Create(t.Context(), file, &orchestrator.CreateChoices{Name: "late"})
	wantKind(t, err, errkind.Refused, "module's clock")
	wantKind(t, err, errkind.Refused, "host's clock")
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.orchestrator()
	id := w.create(o, newTenant(t), "v").Vcm.Uuid
	w.start(o, id)
	resp, err := http.Get("http://" + w.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"unit_connected 1",
		`vcm_state{state="running",uuid="` + id + `"} 1`,
		`vcm_state{state="stopped",uuid="` + id + `"} 0`,
		`vcm_isolation_level{level="`,
		`vcm_isolation_control{control="landlock",state="enforced",uuid="` + id + `"} 1`,
		`vcm_tokens_total{uuid="` + id + `"} 0`,
		`vcm_restarts{uuid="` + id + `"} 0`,
	} {
		if !strings.Contains(string(p), line) {
			t.Errorf("no %s", line)
		}
	}
}
