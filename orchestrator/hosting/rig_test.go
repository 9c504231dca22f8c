package hosting_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/embedded"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/etcdtest"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// The test binary, run again as vcmd, is the VCM: it serves nothing and stops
// when it is told to.
func TestMain(m *testing.M) {
	launch.ServeForker()
	etcdtest.Main()
	if strings.HasPrefix(os.Args[0], "vcmd ") {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

func child() int {
	uc, err := fdrpc.FromFile(os.NewFile(vcmcontrol.ControlFD, "control"))
	if err != nil {
		return 3
	}
	stop, started, ready := make(chan struct{}), make(chan vcmcontrol.Start, 1), make(chan struct{})
	var start vcmcontrol.Start
	conn := fdrpc.New(uc, func(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
		switch r.Method {
		case vcmcontrol.MethodStart:
			if err := r.Decode(&start); err != nil {
				return fdrpc.Reply{}, err
			}
			started <- start
		case vcmcontrol.MethodHello:
			select {
			case <-ready:
			default:
				return fdrpc.Reply{}, errkind.Errorf(errkind.Unavailable, "the VCM has not started yet")
			}
			reply := fdrpc.Reply{Body: vcmcontrol.Ready{Level: launch.Plain}}
			for _, l := range start.Listeners {
				fd, err := unix.FcntlInt(uintptr(l.FD), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					return fdrpc.Reply{}, err
				}
				reply.Files = append(reply.Files, os.NewFile(uintptr(fd), l.Service))
			}
			return reply, nil
		case vcmcontrol.MethodStats:
			return fdrpc.Reply{Body: vcmcontrol.Stats{Memory: 1}}, nil
		case vcmcontrol.MethodMode:
			return fdrpc.Reply{Body: vcmcontrol.Mode{}}, nil
		case vcmcontrol.MethodStop:
			close(stop)
		}
		return fdrpc.Reply{}, nil
	})
	over := make(chan error, 1)
	go func() { over <- conn.Run(context.Background()) }()
	<-started
	// Without the device channel there is no VCM; the unit must have its end.
	if _, err := hsmapi.NewChannel(os.NewFile(vcmcontrol.DeviceFD, "device")); err != nil {
		return 4
	}
	if strings.HasPrefix(start.Name, "slow") {
		time.Sleep(2 * time.Second)
	}
	close(ready)
	if _, err := conn.Call(context.Background(), vcmcontrol.MethodReady, vcmcontrol.Ready{Level: launch.Plain}, nil); err != nil {
		return 5
	}
	select {
	case <-stop:
		return 0
	case <-over:
		return 6
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// rig is a unit, a registry and a host on them that can be killed and opened again.
type rig struct {
	t        testing.TB
	dir      string
	etcd     *embedded.Server
	unit     *unit.Unit
	device   *device.Unit
	launcher *launch.Launcher
	cfg      hosting.Config
	tenant   ssh.Signer
	host     *hosting.Host

	mu    sync.Mutex
	log   []auditlog.Entry
	audit error // what the audit log answers
	limit licensing.Entitlement
}

// failing is a launcher whose processes end at once.
func failing(t testing.TB) *launch.Launcher {
	t.Helper()
	l, err := launch.New(launch.Config{Path: "/bin/false", Floor: launch.Plain, UIDBase: 1_879_000_000, Cgroups: launch.NoCgroups(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "host-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, tenant: signer(t), limit: licensing.Entitlement{Features: licensing.STSVending, MaxActive: 4, MaxCreated: 8}}
	r.openUnit()
	r.etcd, err = embedded.Start(t.Context(), embedded.Config{Dir: filepath.Join(dir, "etcd"), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.etcd.Close)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.launcher, err = launch.New(launch.Config{Path: self, Floor: launch.Plain, UIDBase: 1_879_000_000, Cgroups: launch.NoCgroups(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.launcher.Close() })
	n, err := network.DefaultNetwork("127.77.0.0/16", uuid.NewString())
	if err != nil {
		t.Fatal(err)
	}
	r.cfg = hosting.Config{
		Identity: r.device.Identity(), Unit: r.unit, VCMs: r.claim(r.etcd.Client()), Launcher: r.launcher, Network: n, DataDir: filepath.Join(dir, "vcms"),
		Policy: launch.Policy{Ready: 10 * time.Second, First: time.Millisecond, Last: 50 * time.Millisecond, Attempts: 50, Stable: time.Hour, Drain: 100 * time.Millisecond},
		Entitlement: func() licensing.Entitlement {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.limit
		},
		Audit: r.append,
		File: func(_ context.Context, rec lifecycle.Record) ([]byte, error) {
			return []byte("file of " + rec.UUID), nil
		},
		Log: quiet(),
	}
	return r
}

func (r *rig) append(_ context.Context, e auditlog.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.audit != nil {
		return r.audit
	}
	r.log = append(r.log, e)
	return nil
}

func (r *rig) kinds() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.log {
		out = append(out, e.Kind)
	}
	return out
}

// forked waits until every process that other tests are starting has let go of the
// files of this one, which it has between its fork and its exec.
func forked() {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}

func (r *rig) openUnit() {
	r.t.Helper()
	cfg := device.Config{Dir: filepath.Join(r.dir, "hsm"), Clock: clock.System(), Log: quiet()}
	if _, err := device.Initialise(cfg, ""); err != nil {
		r.t.Fatal(err)
	}
	forked() // and the lock of Initialise is over
	u, err := device.Open(r.t.Context(), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.device = u
	socket := filepath.Join(r.dir, "s")
	l, err := fdrpc.Listen(socket, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = u.Serve(ctx, l) }()
	r.unit, _, err = unit.Connect(r.t.Context(), socket, quiet())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.unit.Close(); cancel(); <-done; u.Close() })
}

// claim takes the unit, as each run of the orchestrator does.
func (r *rig) claim(client *clientv3.Client) registry.VCMs {
	r.t.Helper()
	o, _, err := registry.Acquire(r.t.Context(), client, r.device.Identity().ESN, registry.Claim{Owner: "rig"}, quiet())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = o.Release(ctx)
	})
	return registry.NewEtcd(o)
}

// behind puts the records where requests and answers get lost.
func (r *rig) behind() *etcdtest.Proxy {
	r.t.Helper()
	p := etcdtest.NewProxy(r.t, etcdtest.Start(r.t, 1).Endpoints())
	client, err := registry.Dial([]string{p.Endpoint()}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { client.Close() })
	r.cfg.VCMs = r.claim(client)
	return p
}

func (r *rig) open(rebooted bool) *hosting.Host {
	r.t.Helper()
	h, err := hosting.Open(r.t.Context(), r.cfg, rebooted)
	if err != nil {
		r.t.Fatal(err)
	}
	r.host = h
	r.t.Cleanup(func() { hosting.Kill(h) })
	return h
}

func signer(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *rig) request(q request.Request) []byte {
	r.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	q.ID, q.Created, q.NotBefore, q.Expires = uuid.NewString(), now, now.Add(-time.Minute), now.Add(time.Hour)
	if q.Kind == request.Create {
		q.SSHAdminKey, q.RequestKey = r.tenant.PublicKey(), r.tenant.PublicKey()
	}
	file, err := q.Sign(r.tenant)
	if err != nil {
		r.t.Fatal(err)
	}
	return file
}

// nothing checks that no trace of a VCM is left anywhere.
func (r *rig) nothing() {
	r.t.Helper()
	if n := r.device.Count(); n != 0 {
		r.t.Errorf("%d partitions are left in the unit", n)
	}
	if e, err := os.ReadDir(r.cfg.DataDir); err != nil && !errors.Is(err, fs.ErrNotExist) || len(e) != 0 {
		r.t.Errorf("%d data folders are left (%v)", len(e), err)
	}
	if e, err := r.cfg.VCMs.List(r.t.Context()); err != nil || len(e) != 0 {
		r.t.Errorf("%d records are left (%v)", len(e), err)
	}
}

// flaky is a registry whose writes fail now and then, before they happened, after
// it, or while they are still under way.
type flaky struct {
	registry.VCMs
	mu   sync.Mutex
	rand *rand.Rand
	odds float64
	late sync.WaitGroup
}

var errLost = errors.New("lost")

func (f *flaky) fate() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rand.Float64() / max(f.odds, 1e-12)
}

func (f *flaky) calm() {
	f.mu.Lock()
	f.odds = 0
	f.mu.Unlock()
	f.late.Wait()
}

func (f *flaky) Swap(ctx context.Context, id string, rev registry.Rev, next lifecycle.Record) (registry.Rev, error) {
	switch x := f.fate(); {
	case x < 0.4:
		return 0, errkind.Errorf(errkind.Unavailable, "request: %w", errLost)
	case x < 0.8 || x < 1 && rev == 0:
		_, _ = f.VCMs.Swap(ctx, id, rev, next)
		return 0, errkind.Errorf(errkind.Unavailable, "answer: %w", errLost)
	case x < 1:
		delay := time.Duration(x * 40 * float64(time.Millisecond))
		f.late.Go(func() {
			time.Sleep(delay)
			_, _ = f.VCMs.Swap(context.WithoutCancel(ctx), id, rev, next)
		})
		return 0, errkind.Errorf(errkind.Unavailable, "patience: %w", errLost)
	}
	return f.VCMs.Swap(ctx, id, rev, next)
}

func (f *flaky) Remove(ctx context.Context, id string, rev registry.Rev) error {
	switch x := f.fate(); {
	case x < 0.5:
		return errkind.Errorf(errkind.Unavailable, "request: %w", errLost)
	case x < 1:
		_ = f.VCMs.Remove(ctx, id, rev)
		return errkind.Errorf(errkind.Unavailable, "answer: %w", errLost)
	}
	return f.VCMs.Remove(ctx, id, rev)
}

func distinct[T comparable](t testing.TB, what string, all []T) {
	t.Helper()
	for i, v := range all {
		if slices.Contains(all[i+1:], v) {
			t.Errorf("%s %v twice", what, v)
		}
	}
}
