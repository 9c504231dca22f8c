package sptools_test

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/sp-tools/vcmadmin"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/fakeunit"
)

// Interrupted while it waits for a unit, with another one to ask after it, the
// watching command ends well and says nothing.
func TestWatchInterruptedWhileAsking(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dir := filepath.Join(t.TempDir(), "home")
	var out, errs bytes.Buffer
	env := &console.Env{Stdout: &out, Stderr: &errs, Clock: clock.System(), Getenv: func(name string) string {
		return map[string]string{"NFAST_SERVICES_HOME": dir, "NFAST_KEYPROT": "KFG"}[name]
	}}
	home, err := access.Home(env)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	maker := fakeunit.MakerRoot(t, folder)
	if _, _, err := home.PinMakerRoot(filepath.Join(folder, "maker-root.pub")); err != nil {
		t.Fatal(err)
	}
	for _, esn := range []string{esn, "2B34-CD56-7890"} {
		u, err := unitfile.Read(fakeunit.New(t, t.TempDir(), esn, maker).UnitFile())
		if err != nil {
			t.Fatal(err)
		}
		u.Services = []unitfile.Service{{Name: platform.Orchestrator, Address: silent.Addr().String()}}
		if err := home.SaveUnit(u); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := home.EnsureKey(enrol.Platform, platform.Orchestrator); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan int, 1)
	go func() {
		ended <- env.Run(ctx, vcmadmin.App(env), []string{"vcmadmin", "list", "--watch"})
		silent.Close()
	}()
	c, err := silent.Accept()
	if err != nil {
		t.Fatalf("not asked: %v, exit code %d, errors %q", err, <-ended, &errs)
	}
	defer c.Close()
	interrupt()
	if code := <-ended; code != 0 || out.Len() > 0 || errs.Len() > 0 {
		t.Fatalf("exit code %d, output %q, errors %q", code, &out, &errs)
	}
}
