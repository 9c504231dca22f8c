package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// vcmd is the program under test, built as it is shipped.
var vcmd string

// builtVCMD names a vcmd that was built before, for runs as another user.
const builtVCMD = "TESSERAE_TEST_VCMD"

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	// As the launcher does: what the test runner left open is not passed on.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	if vcmd = os.Getenv(builtVCMD); vcmd != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "vcmd")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run it, too
		panic(err)
	}
	vcmd = filepath.Join(dir, "vcmd")
	build := exec.Command("go", "build", "-o", vcmd, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build vcmd: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const (
	testESN  = "0000-1111-2222"
	testUUID = "3f0c2f6e-6f0b-4c56-8d43-0a6d1b9b7c11"
)

// rig is a unit with one partition, and what an orchestrator holds of its VCM.
type rig struct {
	t         *testing.T
	unit      *hsmapi.Client
	data      string
	listeners []vcmcontrol.Listener
	sockets   []*os.File
	start     vcmcontrol.Start
	attr      syscall.SysProcAttr
	admin     ssh.Signer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, data: filepath.Join(t.TempDir(), "data"), admin: newKey(t)}
	if err := os.Mkdir(r.data, 0o700); err != nil {
		t.Fatal(err)
	}
	r.serveUnit()
	if _, err := r.unit.Create(t.Context(), hsmapi.CreatePartition{UUID: testUUID}); err != nil {
		t.Fatal(err)
	}
	for i, service := range []string{
		vcmcontrol.ServiceSSHAdmin, vcmcontrol.ServiceMonitor, vcmcontrol.ServicePrismToken, vcmcontrol.ServiceConductor,
		vcmcontrol.ServiceTokenAPI, vcmcontrol.ServiceSMAPI, vcmcontrol.ServiceTsmWeb,
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); f.Close() })
		r.sockets = append(r.sockets, f)
		r.listeners = append(r.listeners, vcmcontrol.Listener{Service: service, Address: l.Addr().String(), FD: vcmcontrol.FirstListenerFD + i})
	}
	r.start = vcmcontrol.Start{
		UUID: testUUID, ESN: testESN, Name: "test", DiskQuota: 16 << 20, Listeners: r.listeners, SSHAdminKey: keyLine(r.admin.PublicKey()),
		Isolation: vcmcontrol.Isolation{Floor: "process"}, LogLevel: "info",
	}
	return r
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serveUnit runs a unit in this process on a socket of its own.
func (r *rig) serveUnit() {
	t := r.t
	t.Helper()
	cfg := device.Config{Dir: filepath.Join(t.TempDir(), "unit"), Clock: clock.System(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if _, err := device.Initialise(cfg, testESN); err != nil {
		t.Fatal(err)
	}
	u, err := device.Open(t.Context(), cfg)
	for range 100 {
		if !errkind.Is(err, errkind.Unavailable) && !errkind.Is(err, errkind.Mode) {
			break
		}
		// A child that another test is starting holds the lock until its exec.
		time.Sleep(10 * time.Millisecond)
		u, err = device.Open(t.Context(), cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "hsm.sock")
	l, err := fdrpc.Listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := u.Serve(ctx, l); err != nil {
			t.Errorf("unit: %v", err)
		}
	})
	if r.unit, err = hsmapi.Dial(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.unit.Close()
		cancel()
		wg.Wait()
		_ = u.Close()
	})
}

// process is a started vcmd.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	conn   *fdrpc.Conn
	ready  chan vcmcontrol.Ready
	failed chan vcmcontrol.Failed
	exited chan struct{}
	err    error // valid after exited
	stderr *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// launch starts vcmd and tells it r.start.
func (r *rig) launch() *process {
	t := r.t
	t.Helper()
	p := r.spawn()
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodStart, r.start, nil); err != nil {
		<-p.exited
		t.Fatalf("start: %v\n%s", err, p.stderr)
	}
	return p
}

// spawn starts vcmd, which waits to be told. extra descriptors follow the listeners.
func (r *rig) spawn(extra ...*os.File) *process {
	t := r.t
	t.Helper()
	here, there, err := fdrpc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	deviceEnd, unitEnd := os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "unit")
	r.attach(unitEnd)
	dir, err := os.Open(r.data)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		t: t, ready: make(chan vcmcontrol.Ready, 1), failed: make(chan vcmcontrol.Failed, 1), exited: make(chan struct{}), stderr: &safeBuffer{},
	}
	attr := r.attr
	attr.Pdeathsig = syscall.SIGKILL
	p.cmd = &exec.Cmd{
		Path: vcmd, Args: []string{"vcmd"}, Env: []string{}, Dir: "/", Stderr: p.stderr, SysProcAttr: &attr,
		ExtraFiles: append(append([]*os.File{there, deviceEnd, dir}, r.sockets...), extra...),
	}
	p.conn = fdrpc.New(here, p.answer)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{there, deviceEnd, unitEnd, dir} {
		f.Close()
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.conn.Run(context.Background()) })
	go func() { p.err = p.cmd.Wait(); close(p.exited) }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		_ = p.conn.Close()
		wg.Wait()
		if t.Failed() {
			t.Logf("vcmd said:\n%s", p.stderr)
		}
	})
	return p
}

// attach hands the unit its end, once it has noticed that the last VCM is gone.
func (r *rig) attach(end *os.File) {
	r.t.Helper()
	for range 500 {
		err := r.unit.Attach(r.t.Context(), hsmapi.Attach{UUID: testUUID}, end)
		if err == nil {
			return
		}
		if !errkind.Is(err, errkind.Mode) && !errkind.Is(err, errkind.Refused) && !errkind.Is(err, errkind.Unavailable) {
			r.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatal("the unit keeps the partition")
}

func (p *process) answer(_ context.Context, _ *fdrpc.Conn, q fdrpc.Request) (fdrpc.Reply, error) {
	switch q.Method {
	case vcmcontrol.MethodReady:
		var v vcmcontrol.Ready
		if err := q.Decode(&v); err != nil {
			return fdrpc.Reply{}, err
		}
		p.ready <- v
	case vcmcontrol.MethodFailed:
		var v vcmcontrol.Failed
		if err := q.Decode(&v); err != nil {
			return fdrpc.Reply{}, err
		}
		p.failed <- v
	}
	return fdrpc.Reply{}, nil
}

// mustBeReady waits until the VCM serves.
func (p *process) mustBeReady() vcmcontrol.Ready {
	p.t.Helper()
	select {
	case r := <-p.ready:
		return r
	case f := <-p.failed:
		p.t.Fatalf("the VCM failed: %+v", f)
	case <-p.exited:
		p.t.Fatalf("vcmd ended: %v\n%s", p.err, p.stderr)
	case <-time.After(30 * time.Second):
		p.t.Fatal("the VCM was not ready in time")
	}
	return vcmcontrol.Ready{}
}

// mustFail waits until the VCM reports a failure and ends.
func (p *process) mustFail() vcmcontrol.Failed {
	p.t.Helper()
	select {
	case f := <-p.failed:
		p.waitExit()
		return f
	case <-p.ready:
		p.t.Fatal("the VCM started")
	case <-p.exited:
		select {
		case f := <-p.failed:
			return f
		default:
			p.t.Fatalf("vcmd ended without a report: %v\n%s", p.err, p.stderr)
		}
	case <-time.After(30 * time.Second):
		p.t.Fatal("the VCM did not fail in time")
	}
	return vcmcontrol.Failed{}
}

func (p *process) waitExit() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.t.Fatal("vcmd did not end")
	}
	var e *exec.ExitError
	if errors.As(p.err, &e) {
		return e.ExitCode()
	}
	if p.err != nil {
		p.t.Fatal(p.err)
	}
	return 0
}

func (p *process) stop(s vcmcontrol.Stop) {
	p.t.Helper()
	if _, err := p.conn.Call(p.t.Context(), vcmcontrol.MethodStop, s, nil); err != nil {
		p.t.Fatalf("stop: %v", err)
	}
	if code := p.waitExit(); code != 0 {
		p.t.Fatalf("vcmd ended with %d\n%s", code, p.stderr)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

func (r *rig) address(service string) string {
	for _, l := range r.listeners {
		if l.Service == service {
			return l.Address
		}
	}
	r.t.Fatalf("no listener for %s", service)
	return ""
}

// dial opens a session with a service as a tenant would.
func (r *rig) dial(service string, key ssh.Signer) (*sshrpc.Client, error) {
	r.t.Helper()
	id, err := r.unit.Identity(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	unitKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(id.UnitKey))
	if err != nil {
		r.t.Fatal(err)
	}
	return sshrpc.Dial(r.t.Context(), sshrpc.ClientConfig{
		Service: service, Address: r.address(service), Signer: key, UnitKey: unitKey,
		Principal: hsmapi.Principal(testESN, testUUID, service), Timeout: 10 * time.Second,
	})
}

func (r *rig) mustDial(service string, key ssh.Signer) *sshrpc.Client {
	r.t.Helper()
	c, err := r.dial(service, key)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (p *process) mustBeReadyAndStop() {
	p.t.Helper()
	p.mustBeReady()
	p.stop(vcmcontrol.Stop{Drain: 2000})
}

// copyData returns the files of the data directory; restoreData puts them back.
func (r *rig) copyData() map[string][]byte {
	r.t.Helper()
	out := map[string][]byte{}
	entries, err := os.ReadDir(r.data)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if out[e.Name()], err = os.ReadFile(filepath.Join(r.data, e.Name())); err != nil {
			r.t.Fatal(err)
		}
	}
	return out
}

func (r *rig) restoreData(files map[string][]byte) {
	r.t.Helper()
	for name, p := range files {
		if err := os.WriteFile(filepath.Join(r.data, name), p, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}
