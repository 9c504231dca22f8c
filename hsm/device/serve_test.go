package device

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

func TestMayUse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		uid, owner uint32
		want       bool
	}{{0, 0, true}, {0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {65534, 0, false}} {
		if got := mayUse(tc.uid, tc.owner); got != tc.want {
			t.Errorf("user %d at the unit of %d: %t", tc.uid, tc.owner, got)
		}
	}
}

// served serves a new unit on a socket whose permissions keep nobody out.
func served(t *testing.T) (socket string) {
	t.Helper()
	cfg := Config{Dir: t.TempDir()}
	if _, err := Initialise(cfg, ""); err != nil {
		t.Fatal(err)
	}
	u, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.MkdirTemp("", "hsmd")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(public, 0o755); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(public, "s")
	l, err := fdrpc.Listen(socket, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(public)
	})
	return socket
}

// dialAs connects as another user: credentials belong to a thread, and the
// thread dies with the goroutine that stays locked to it.
func dialAs(socket string, uid int) (*net.UnixConn, error) {
	type result struct {
		f   *os.File
		err error
	}
	ch := make(chan result)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				err = e
			} else {
				err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
			}
		}
		ch <- result{os.NewFile(uintptr(fd), "client"), err}
	}()
	r := <-ch
	if r.err != nil {
		_ = r.f.Close()
		return nil, r.err
	}
	return fdrpc.FromFile(r.f)
}

func TestAnotherUserIsTurnedAway(t *testing.T) {
	t.Parallel()
	socket := served(t)
	own, err := hsmapi.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := own.Identity(t.Context()); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		t.Log("REDUCED: without root nobody else can be played; only the rule was tested (TestMayUse)")
		return
	}
	uc, err := dialAs(socket, 65534)
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	if err := uc.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = uc.Write([]byte(`{"id":1,"method":"identity","body":null}`))
	if n, err := uc.Read(make([]byte, 100)); n != 0 {
		t.Errorf("user 65534 got %d bytes, %v", n, err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	socket := served(t)
	var kept []*hsmapi.Client
	defer func() {
		for _, c := range kept {
			c.Close()
		}
	}()
	for range maxConns {
		c, err := hsmapi.Dial(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, c)
		if _, err := c.Identity(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	extra, err := hsmapi.Dial(t.Context(), socket)
	if err == nil {
		_, err = extra.Identity(t.Context())
		extra.Close()
	}
	if !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("connection %d: %v", maxConns+1, err)
	}
	if _, err := kept[0].Identity(t.Context()); err != nil {
		t.Errorf("the others suffer: %v", err)
	}
}
