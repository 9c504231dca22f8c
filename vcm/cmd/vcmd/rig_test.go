package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/tesserae-hsm/tesserae/vcm/store"
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
	t         testing.TB
	unit      *hsmapi.Client
	stopUnit  func()
	data      string
	listeners []vcmcontrol.Listener
	sockets   []*os.File
	start     vcmcontrol.Start
	attr      syscall.SysProcAttr
	speed     hsmapi.Speed // zero: not limited
	admin     ssh.Signer
	keys      map[string]ssh.Signer // of other services, see equip
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, data: filepath.Join(t.TempDir(), "data"), admin: newKey(t),
		keys: map[string]ssh.Signer{vcmcontrol.ServiceMonitor: nil, vcmcontrol.ServicePrismToken: nil, vcmcontrol.ServiceConductor: nil}}
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

func newKey(t testing.TB) ssh.Signer {
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
	r.stopUnit = sync.OnceFunc(func() {
		_ = r.unit.Close()
		cancel()
		wg.Wait()
		_ = u.Close()
	})
	t.Cleanup(r.stopUnit)
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

// fillStore opens the partition as vcmd does and writes until nothing fits.
func (r *rig) fillStore() {
	t := r.t
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := os.NewFile(uintptr(fds[1]), "unit")
	r.attach(end)
	end.Close()
	channel, err := hsmapi.NewChannel(os.NewFile(uintptr(fds[0]), "device"))
	if err != nil {
		t.Fatal(err)
	}
	defer channel.Close()
	_, key, err := channel.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	dir, err := os.Open(r.data)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s, err := store.Open(t.Context(), store.Config{Dir: dir, Key: key.Bytes(), Counter: channel, Quota: r.start.DiskQuota, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// Large values first, then small ones, down to what the start's entry needs.
	for size := 64 << 10; size >= 64; size /= 4 {
		for n := 0; ; n++ {
			err := s.Shrink(t.Context(), func(tx *store.Tx) error {
				return tx.Bucket("filler").Put(fmt.Appendf(nil, "%d-%d", size, n), make([]byte, size))
			})
			if errkind.Is(err, errkind.Limit) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}
