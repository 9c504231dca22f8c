package scale_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
	"github.com/tesserae-hsm/tesserae/conformance/scale"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
)

var binaries rigtest.Binaries

func TestMain(m *testing.M) { os.Exit(binaries.Main(m)) }

// TestSmallFleet is 'make scale' with few VCMs. The machine may be busy with
// other tests, so figures over their budget are printed and not judged.
func TestSmallFleet(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "tscale-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	err = scale.Run(t.Context(), scale.Config{Bin: binaries.Dir(t), Dir: dir, N: 16, Workers: 8, Idle: time.Second, Out: t.Output()})
	var over scale.OverBudget
	if errors.As(err, &over) {
		t.Logf("%v", over)
	} else if err != nil {
		t.Error(err)
	}
}

// BenchmarkStart is a VCM from the provider's request until it serves.
func BenchmarkStart(b *testing.B) {
	defer func() { b.ReportMetric(1, "ref:BareProcess") }()
	h, uuid := hosted(b)
	for b.Loop() {
		if _, err := h.Start(b.Context(), uuid, nil, 60); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := h.Stop(b.Context(), uuid, true, 10); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// hosted is a connection to a unit with one VCM, which has been started before:
// the first start makes keys that later ones find.
func hosted(b *testing.B) (*rig.Hosting, string) {
	b.Helper()
	r, ctx := binaries.New(b), b.Context()
	if err := r.Maker(ctx); err != nil {
		b.Fatal(err)
	}
	if _, _, err := r.Unit(ctx); err != nil {
		b.Fatal(err)
	}
	if err := r.EnrolProvider(ctx); err != nil {
		b.Fatal(err)
	}
	d, err := r.Direct(ctx)
	if err != nil {
		b.Fatal(err)
	}
	h, err := d.Dial(ctx)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(h.Close)
	t, err := scale.NewTenant("bench")
	if err != nil {
		b.Fatal(err)
	}
	file, err := t.Request()
	if err != nil {
		b.Fatal(err)
	}
	c, err := h.Create(ctx, file, &orchestrator.CreateChoices{Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := h.Start(ctx, c.Vcm.Uuid, nil, 60); err != nil {
		b.Fatal(err)
	}
	if _, err := h.Stop(ctx, c.Vcm.Uuid, true, 10); err != nil {
		b.Fatal(err)
	}
	return h, c.Vcm.Uuid
}

// BenchmarkReferenceBareProcess is a Go process with as many listeners, which
// its parent binds and hands over, until it serves.
func BenchmarkReferenceBareProcess(b *testing.B) {
	binary := filepath.Join(b.TempDir(), "bare")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./bare")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for b.Loop() {
		end := startBare(b, binary)
		b.StopTimer()
		end()
		b.StartTimer()
	}
}

// listeners is how many a VCM has.
const listeners = 7

func startBare(b *testing.B, binary string) (end func()) {
	b.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "here"), os.NewFile(uintptr(fds[1]), "there")
	files := []*os.File{there}
	for range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			b.Fatal(err)
		}
		_ = l.Close()
		files = append(files, f)
	}
	cmd := exec.Command(binary, fmt.Sprint(listeners))
	cmd.ExtraFiles, cmd.Stderr = files, os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		_ = f.Close()
	}
	if _, err := here.Read(make([]byte, 1)); err != nil {
		b.Fatalf("it does not serve: %v", err)
	}
	return func() { _ = here.Close(); _ = cmd.Wait() }
}
