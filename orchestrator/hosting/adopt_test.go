package hosting_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// keeping is a rig whose VCMs outlive its host.
type keeping struct {
	*rig
	fence int64
}

func newKeeping(t *testing.T) *keeping {
	k := &keeping{rig: newRig(t)}
	k.next()
	// What a test that fails leaves ends with the last launcher.
	t.Cleanup(func() { k.launcher.Close() })
	return k
}

// next is the launcher of another run.
func (k *keeping) next() {
	k.t.Helper()
	self, err := os.Executable()
	if err != nil {
		k.t.Fatal(err)
	}
	k.fence++
	k.launcher, err = launch.New(launch.Config{
		Path: self, Floor: launch.Plain, UIDBase: 1_879_000_000, Cgroups: launch.NoCgroups(), Log: quiet(),
		Forker: self, Dir: k.dir, Fence: k.fence, Grace: 20 * time.Second,
	})
	if err != nil {
		k.t.Fatal(err)
	}
	k.cfg.Launcher = k.launcher
}

// again is the death of a run and the next one. meanwhile happens in between.
func (k *keeping) again(h *hosting.Host, rebooted bool, meanwhile func()) *hosting.Host {
	k.t.Helper()
	h.Leave()
	if err := k.launcher.Leave(); err != nil {
		k.t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile()
	}
	k.next()
	return k.open(rebooted)
}

func (k *keeping) create(h *hosting.Host, name string) lifecycle.Record {
	k.t.Helper()
	rec, err := h.Create(k.t.Context(), "by", k.request(request.Request{Kind: request.Create}), admit.Choices{Name: name})
	if err != nil {
		k.t.Fatal(err)
	}
	return rec
}

func (k *keeping) run(h *hosting.Host, name string) (lifecycle.Record, int) {
	k.t.Helper()
	rec := k.create(h, name)
	rec, err := h.Start(k.t.Context(), "by", rec.UUID, nil, 30*time.Second)
	if err != nil {
		k.t.Fatal(err)
	}
	return rec, hosting.PID(h, rec.UUID)
}

// alter changes a stored record behind everybody's back.
func (k *keeping) alter(uuid string, fn func(*lifecycle.Record)) {
	k.t.Helper()
	rec, rev, err := k.cfg.VCMs.Get(k.t.Context(), uuid)
	if err != nil {
		k.t.Fatal(err)
	}
	fn(&rec)
	if _, err := k.cfg.VCMs.Swap(k.t.Context(), uuid, rev, rec); err != nil {
		k.t.Fatal(err)
	}
}

// becomes waits for a state and returns the process.
func (k *keeping) becomes(h *hosting.Host, uuid string, want lifecycle.State) (lifecycle.Record, int) {
	k.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		rec, err := h.Show(uuid)
		if pid := hosting.PID(h, uuid); err == nil && rec.State == want && (pid != 0) == (want == lifecycle.Running) {
			return rec, pid
		}
		if time.Now().After(end) {
			k.t.Fatalf("it is %s (%s), %v", rec.State, rec.Reason, err)
		}
	}
}

// ended waits for the end of a process.
func ended(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || strings.Contains(string(p), ") Z ") && len(threads) <= 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %d lives on", pid)
		}
	}
}

func TestVCMServesOnForTheNextHost(t *testing.T) {
	t.Parallel()
	k := newKeeping(t)
	h := k.open(false)
	rec, pid := k.run(h, "kept")
	idle := k.create(h, "idle")
	before := len(k.kinds())
	client, err := net.Dial("tcp", net.JoinHostPort(rec.Properties.IPAddress, "9443"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 3 {
		h = k.again(h, false, nil)
		now, got := k.becomes(h, rec.UUID, lifecycle.Running)
		if got != pid || now.Changed != rec.Changed || now.Restarts != 0 {
			t.Fatalf("process %d, was %d; %+v", got, pid, now)
		}
		stats, err := h.Stats(t.Context(), rec.UUID)
		if err != nil || stats[0].Memory != 1 || stats[0].Uptime <= 0 {
			t.Errorf("%+v, %v", stats, err)
		}
	}
	if after := k.kinds(); len(after) != before {
		t.Errorf("the log says %v", after[before:])
	}
	// Its ports are its own while it is stopped, too.
	if _, err := h.Stop(t.Context(), "by", rec.UUID, true, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	ended(t, pid)
	if l, err := net.Listen("tcp", net.JoinHostPort(rec.Properties.IPAddress, "9443")); err == nil {
		l.Close()
		t.Error("somebody else can have its port")
	}
	if _, err := h.Start(t.Context(), "by", rec.UUID, nil, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(hosting.PID(h, rec.UUID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, r := range []lifecycle.Record{rec, idle} {
		if _, err := h.Stop(t.Context(), "by", r.UUID, true, 10*time.Second); err != nil && !errkind.Is(err, errkind.Mode) {
			t.Fatal(err)
		}
		if err := h.Delete(t.Context(), "by", r.UUID, true); err != nil {
			t.Fatal(err)
		}
	}
	k.nothing()
}

func TestOperationsThatWereInFlight(t *testing.T) {
	t.Parallel()
	k := newKeeping(t)
	for name, c := range map[string]struct {
		alter    func(*lifecycle.Record)
		rebooted bool
		want     lifecycle.State
		same     bool
	}{
		"stop":     {func(r *lifecycle.Record) { r.State = lifecycle.Stopping }, false, lifecycle.Stopped, false},
		"stopped":  {func(r *lifecycle.Record) { r.State = lifecycle.Stopped }, false, lifecycle.Stopped, false},
		"start":    {func(r *lifecycle.Record) { r.State = lifecycle.Starting }, false, lifecycle.Running, true},
		"reboot":   {func(*lifecycle.Record) {}, true, lifecycle.Stopped, false},
		"deleting": {func(r *lifecycle.Record) { r.State = lifecycle.Deleting }, false, "", false},
		"creating": {func(r *lifecycle.Record) { r.Pending = true }, false, "", false},
	} {
		h := k.open(false)
		rec, pid := k.run(h, name)
		h = k.again(h, c.rebooted, func() { k.alter(rec.UUID, c.alter) })
		switch {
		case c.want == "":
			if rec, err := h.Show(rec.UUID); !errkind.Is(err, errkind.NotFound) {
				t.Errorf("%s: it is %s, %v", name, rec.State, err)
			}
		default:
			_, got := k.becomes(h, rec.UUID, c.want)
			if c.same != (got == pid) {
				t.Errorf("%s: process %d, was %d", name, got, pid)
			}
			if c.want == lifecycle.Running {
				if _, err := h.Stop(t.Context(), "by", rec.UUID, true, 10*time.Second); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if err := h.Delete(t.Context(), "by", rec.UUID, true); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		ended(t, pid)
		hosting.Kill(h)
	}
	k.nothing()
}

func TestProcessThatEndedOrDoesNotServe(t *testing.T) {
	t.Parallel()
	k := newKeeping(t)
	h := k.open(false)
	dead, deadPID := k.run(h, "dead")
	kept, keptPID := k.run(h, "kept")
	slow := k.create(h, "slow")
	if _, err := h.Start(t.Context(), "by", slow.UUID, nil, 500*time.Millisecond); !errkind.Is(err, errkind.Unavailable) {
		t.Fatalf("start of a slow one: %v", err)
	}
	h = k.again(h, false, func() {
		if err := syscall.Kill(deadPID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ended(t, deadPID)
	})
	if rec, err := h.Show(dead.UUID); err != nil || rec.State == lifecycle.Starting && !strings.Contains(rec.Reason, "signal killed") {
		t.Errorf("%s: %q, %v", rec.State, rec.Reason, err)
	}
	for uuid, pid := range map[string]int{dead.UUID: deadPID, slow.UUID: 0} {
		if _, now := k.becomes(h, uuid, lifecycle.Running); now == pid {
			t.Errorf("process %d again", now)
		}
	}
	if _, now := k.becomes(h, kept.UUID, lifecycle.Running); now != keptPID {
		t.Errorf("process %d, was %d", now, keptPID)
	}
}

// The tenant's share is kept nowhere: a process that was taken over is the last one
// until he asks for another.
func TestRestrictedVCMServesOn(t *testing.T) {
	t.Parallel()
	k := newKeeping(t)
	h := k.open(false)
	secret, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	public, err := secret.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	rec, err := h.Create(t.Context(), "by", k.request(request.Request{Kind: request.Create, ShareKey: public, Properties: request.Properties{RestrictStartup: &yes}}), admit.Choices{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	use := tenantshare.Use{ESN: rec.ESN, UUID: rec.UUID, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}
	sealed, err := tenantshare.Seal(k.cfg.Identity.EncryptionKey, secret, use)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Start(t.Context(), "by", rec.UUID, k.request(request.Request{Kind: request.Start, VCM: rec.UUID, Share: sealed}), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	pid := hosting.PID(h, rec.UUID)
	h = k.again(h, false, nil)
	if _, got := k.becomes(h, rec.UUID, lifecycle.Running); got != pid {
		t.Fatalf("process %d, was %d", got, pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if rec, _ := k.becomes(h, rec.UUID, lifecycle.Failed); !strings.Contains(rec.Reason, "start request") {
		t.Errorf("%q", rec.Reason)
	}
}
