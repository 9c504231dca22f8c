package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/etcdtest"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

func TestLifeOfAVCM(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, n := w.orchestrator(), newTenant(t)
	created := w.create(o, n, "first")
	id := created.Vcm.Uuid
	if created.Vcm.State != "created" || created.Vcm.Esn != w.esn || created.Vcm.Properties.Name != "first" {
		t.Errorf("created %+v", created.Vcm)
	}
	f, err := vcmfile.Parse(created.VcmFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Verify(w.root()); err != nil {
		t.Error(err)
	}
	v := w.start(o, id)
	if v.State != "running" || v.IsolationLevel == "" || len(v.Isolation) == 0 {
		t.Errorf("started: state %s, isolation %q, %d controls", v.State, v.IsolationLevel, len(v.Isolation))
	}
	if _, err := o.Start(t.Context(), id, nil, 10); !errkind.Is(err, errkind.Mode) {
		t.Errorf("a second start: %v", err)
	}
	list, err := o.ListVcms(t.Context(), true)
	if err != nil || len(list) != 1 || list[0].Uuid != id {
		t.Errorf("list: %v %v", list, err)
	}
	asked := time.Now()
	stats, err := o.Stats(t.Context(), id)
	if err != nil || len(stats) != 1 || stats[0].Memory == 0 || stats[0].Disk == 0 {
		t.Errorf("stats: %+v %v", stats, err)
	} else if at := time.UnixMilli(stats[0].Sampled); at.Before(asked.Truncate(time.Millisecond)) {
		t.Errorf("stats asked for at %s are of %s", asked, at)
	}
	if err := o.Remove(t.Context(), id, true); !errkind.Is(err, errkind.Mode) {
		t.Errorf("a running VCM was deleted by force: %v", err)
	}
	again, err := o.VcmFile(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := vcmfile.Parse(again); err != nil || f.IsolationLevel != v.IsolationLevel {
		t.Errorf("the file does not certify the isolation: %+v %v", f, err)
	}
	if v, err = o.Stop(t.Context(), id, false, 30); err != nil || v.State != "stopped" {
		t.Fatalf("stop: %+v %v", v, err)
	}
	if err := o.Remove(t.Context(), id, false); !errkind.Is(err, errkind.Refused) {
		t.Errorf("deleted with an audit log that is not finalised: %v", err)
	}
	if err := o.Remove(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Show(t.Context(), id); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("show after delete: %v", err)
	}
	if _, err := os.Stat(w.path("o/vcms/" + id)); !os.IsNotExist(err) {
		t.Errorf("its data is left: %v", err)
	}
	for _, p := range []*process{w.orch, w.hsmd} {
		if code := p.end(syscall.SIGTERM); code != 0 || strings.Contains(p.log.String(), "ERROR:") {
			t.Errorf("%s ended with %d\n%s", filepath.Base(p.cmd.Path), code, p.log)
		}
	}
}

// SIGTERM during the start is an orderly end as well: here, while hsmd is away.
func TestEndDuringTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.orch.end(syscall.SIGTERM)
	w.hsmd.end(syscall.SIGKILL) // leaves its socket
	p, _ := w.daemon("orchestratord", "run", "--state", w.path("o"), "--hsm-socket", w.path("hsm.sock"), "--log-level", "debug")
	eventually(t, "it holds its state folder", func() bool { return holdsLedger(t, p) })
	if code := p.end(syscall.SIGTERM); code != 0 || strings.Contains(p.log.String(), "ERROR:") || !strings.Contains(p.log.String(), "ended during the start") {
		t.Errorf("it ended with %d\n%s", code, p.log)
	}
}

// holdsLedger looks among the open files of p.
func holdsLedger(t *testing.T, p *process) bool {
	t.Helper()
	fds := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && strings.Contains(target, "/o/") {
			return true
		}
	}
	return false
}

func TestCrashAndShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.licence("max-active-vcms", "5")
	o := w.orchestrator()
	states := map[string]string{}
	for _, want := range []string{"running", "running", "stopped", "created"} {
		id := w.create(o, newTenant(t), want).Vcm.Uuid
		states[id] = want
		if want != "created" {
			w.start(o, id)
		}
		if want == "stopped" {
			if _, err := o.Stop(t.Context(), id, true, 30); err != nil {
				t.Fatal(err)
			}
		}
	}
	addresses := w.unit().Services
	w.orch.end(syscall.SIGKILL)
	w.startOrchestrator()
	o = w.orchestrator()
	eventually(t, "every VCM is where it was", func() bool { return same(t, o, states) })
	for i, s := range w.unit().Services {
		if s != addresses[i] {
			t.Errorf("service %s moved from %s to %s", s.Name, addresses[i].Address, s.Address)
		}
	}
	// A shutdown in good order is a reboot: only autostart runs after it.
	if code := w.orch.end(syscall.SIGTERM); code != 0 {
		t.Errorf("orchestratord ended with %d", code)
	}
	w.startOrchestrator()
	o = w.orchestrator()
	for id, s := range states {
		if s == "running" {
			states[id] = "stopped"
		}
	}
	if !same(t, o, states) {
		t.Errorf("after a shutdown")
	}
}

func same(t *testing.T, o *orchestrator.OrchestratorClient, want map[string]string) bool {
	t.Helper()
	list, err := o.ListVcms(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != len(want) {
		t.Fatalf("%d VCMs, want %d", len(list), len(want))
	}
	for _, v := range list {
		if v.State == "failed" {
			t.Fatalf("%s failed: %s", v.Properties.Name, v.Reason)
		}
		if v.State != want[v.Uuid] {
			return false
		}
	}
	return true
}

// While the unit is away a VCM's clients wait for a while and are refused then;
// once it is back they are served.
func TestUnitComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.orchestrator()
	v := w.create(o, newTenant(t), "v").Vcm
	id := v.Uuid
	dial := func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(v.Properties.IpAddress, "9443"), 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}
	w.start(o, id)
	w.hsmd.end(syscall.SIGKILL)
	if err := dial(); err != nil {
		t.Errorf("at once: %v", err)
	}
	if _, err := o.Create(t.Context(), []byte("x"), &orchestrator.CreateChoices{}); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("without the unit: %v", err)
	}
	eventually(t, "clients are refused", func() bool { return errors.Is(dial(), syscall.ECONNREFUSED) })
	w.startHSM()
	eventually(t, "the VCM runs again", func() bool {
		v, err := o.Show(t.Context(), id)
		return err == nil && v.State == "running" && v.Restarts > 0
	})
	if err := dial(); err != nil {
		t.Errorf("the unit is back: %v", err)
	}
}

func TestNobodyElseGetsIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if w.unit().FactoryKey != "" {
		t.Error("the unit file still names a factory key")
	}
	if e, err := os.ReadDir(w.path("o/keys")); err != nil {
		t.Error(err)
	} else {
		for _, f := range e {
			if strings.Contains(f.Name(), "factory") {
				t.Errorf("%s is left", f.Name())
			}
			if i, err := f.Info(); err != nil || i.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v (%v)", f.Name(), i.Mode(), err)
			}
		}
	}
	for service := range w.keys {
		for other, key := range w.keys {
			c, err := w.dial(service, key)
			if (err == nil) != (service == other) {
				t.Errorf("key of %s at %s: %v", other, service, err)
			}
			if err == nil {
				c.Close()
			} else if !errkind.Is(err, errkind.Unauthorised) {
				t.Errorf("key of %s at %s: %v", other, service, err)
			}
		}
	}
}

// The records are in a cluster that asks for TLS and certificates, and stay
// readable and writable while one of its members is gone.
func TestExternalCluster(t *testing.T) {
	t.Parallel()
	cluster, f := etcdtest.StartTLS(t, 3)
	w := newWorld(t, "--etcd-endpoints", cluster.Endpoints(), "--etcd-ca", f.CA, "--etcd-cert", f.Cert, "--etcd-key", f.Key)
	id := w.create(w.orchestrator(), newTenant(t), "v").Vcm.Uuid
	w.start(w.orchestrator(), id)
	for i := range cluster.Len() {
		cluster.Kill(i)
		// A write that was under way may have got lost: it is tried again.
		eventually(t, "it stops", func() bool {
			v, err := w.orchestrator().Stop(t.Context(), id, true, 30)
			if err != nil {
				v, err = w.orchestrator().Show(t.Context(), id)
			}
			return err == nil && v.State == "stopped"
		})
		eventually(t, "it starts", func() bool {
			_, _ = w.orchestrator().Start(t.Context(), id, nil, 30)
			v, err := w.orchestrator().Show(t.Context(), id)
			return err == nil && v.State == "running"
		})
		cluster.Restart(i)
		cluster.Await()
	}
	w.orch.end(syscall.SIGKILL)
	w.startOrchestrator()
	eventually(t, "it runs again", func() bool {
		v, err := w.orchestrator().Show(t.Context(), id)
		return err == nil && v.State == "running"
	})
	found, err := cluster.Client().Get(t.Context(), "/tesserae/1/units/"+w.esn+"/vcms/"+id)
	if err != nil || found.Count != 1 {
		t.Errorf("the record is not in the cluster: %+v %v", found, err)
	}
}

// Everything works for a user without privilege, only without uids of its own
// and control groups for the VCMs.
func TestWithoutPrivilege(t *testing.T) {
	t.Parallel()
	w := makeWorld(t, true, netHost{})
	o := w.orchestrator()
	id := w.create(o, newTenant(t), "v").Vcm.Uuid
	v := w.start(o, id)
	if v.IsolationLevel != "rootless" {
		t.Errorf("isolation level %s", v.IsolationLevel)
	}
	w.orch.end(syscall.SIGKILL)
	w.startOrchestrator()
	o = w.orchestrator()
	eventually(t, "it runs again", func() bool {
		v, err := o.Show(t.Context(), id)
		return err == nil && v.State == "running"
	})
	if _, err := o.Stop(t.Context(), id, false, 30); err != nil {
		t.Error(err)
	}
	if err := o.Remove(t.Context(), id, true); err != nil {
		t.Error(err)
	}
}
