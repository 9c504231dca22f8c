package main

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// exported fetches the platform's log and verifies it offline.
func (w *world) exported() auditlog.Verified {
	w.t.Helper()
	m := w.monitor()
	line, err := m.LogKey(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	unitKey, err := w.unit().Key()
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := auditlog.CertifiedKey(line, unitKey, hsmapi.Principal(w.esn, "", "auditlog"))
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := m.LogExport(w.t.Context(), 0, true)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := auditlog.Verify(e.Text, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func kinds(v auditlog.Verified) (out []string) {
	for _, r := range v.Records {
		out = append(out, r.Kind)
	}
	return out
}

func has(v auditlog.Verified, kind string) bool {
	for _, r := range v.Records {
		if r.Kind == kind {
			return true
		}
	}
	return false
}

func TestEverythingIsInTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, n := w.orchestrator(), newTenant(t)
	id := w.create(o, n, "v").Vcm.Uuid
	w.start(o, id)
	if _, err := w.monitor().LogExpire(t.Context(), 1); err == nil {
		t.Error("entries that were not exported were removed")
	}
	if _, err := o.Stop(t.Context(), id, true, 30); err != nil {
		t.Fatal(err)
	}
	set := n.sign(t, request.Request{Kind: request.SetProperties, VCM: id, Properties: request.Properties{Name: ptr("w")}})
	if _, err := o.SetProperty(t.Context(), set, id, "name", "w"); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	v := w.exported()
	for _, kind := range []string{"unit.keys", "vcm.create", "vcm.start", "vcm.ready", "vcm.stop", "vcm.property", "vcm.delete"} {
		if !has(v, kind) {
			t.Errorf("no %s among %v", kind, kinds(v))
		}
	}
	for _, r := range v.Records {
		if r.Kind == "vcm.create" && (r.Subject != id || !strings.HasPrefix(r.Actor, "orchestrator SHA256:")) {
			t.Errorf("%+v", r)
		}
	}
	removed, err := w.monitor().LogExpire(t.Context(), int64(v.Last))
	if err != nil || removed != int64(len(v.Records)) {
		t.Errorf("%d removed of %d (%v)", removed, len(v.Records), err)
	}
	if after := w.exported(); after.First != v.Last+1 {
		t.Errorf("the numbers begin again: %d after %d", after.First, v.Last)
	}
}

// Once the tenant has exported the VCM's whole log, it goes without force.
func TestFinalisedLogLetsGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, n := w.orchestrator(), newTenant(t)
	c := w.create(o, n, "v")
	w.start(o, c.Vcm.Uuid)
	dial := func(service string, key ssh.Signer) *sshrpc.Client {
		unitKey, err := w.unit().Key()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range c.Vcm.Endpoints {
			if e.ServiceName != service {
				continue
			}
			cl, err := sshrpc.Dial(t.Context(), sshrpc.ClientConfig{Service: service, Address: e.Address, Signer: key,
				UnitKey: unitKey, Principal: hsmapi.Principal(w.esn, c.Vcm.Uuid, service), Timeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			return cl
		}
		t.Fatalf("no endpoint %s", service)
		return nil
	}
	watcher := sshrpctest.Key(t)
	admin := dial("sshadmin", n.ssh)
	defer admin.Close()
	_, err := sshadmin.NewSshAdminClient(admin.Thrift()).InstallKeys(t.Context(),
		[]*sshadmin.ClientKey{{ServiceName: "monitor", ClientKey: request.KeyText(watcher.PublicKey())}})
	if err != nil {
		t.Fatal(err)
	}
	mon := dial("monitor", watcher)
	defer mon.Close()
	if e, err := monitor.NewMonitorClient(mon.Thrift()).LogExport(t.Context(), 0, false); err != nil || e.More {
		t.Fatalf("%+v %v", e, err)
	}
	if _, err := o.Stop(t.Context(), c.Vcm.Uuid, false, 30); err != nil {
		t.Fatal(err)
	}
	if err := o.Remove(t.Context(), c.Vcm.Uuid, false); err != nil {
		t.Error(err)
	}
}
