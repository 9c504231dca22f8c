package fdrpc_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// connect returns a client whose calls h answers; both ends are waited for.
func connect(t *testing.T, h fdrpc.Handler) *fdrpc.Conn {
	t.Helper()
	here, there, err := fdrpc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := fdrpc.FromFile(there)
	if err != nil {
		t.Fatal(err)
	}
	client, server := fdrpc.New(here, nil), fdrpc.New(peer, h)
	var wg sync.WaitGroup
	for _, c := range []*fdrpc.Conn{client, server} {
		wg.Go(func() {
			if err := c.Run(t.Context()); err != nil && t.Context().Err() == nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(func() { client.Close(); wg.Wait() })
	return client
}

func TestCallCarriesDescriptorsBothWays(t *testing.T) {
	t.Parallel()
	client := connect(t, func(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
		defer r.Files[0].Close()
		text, err := io.ReadAll(r.Files[0])
		if err != nil {
			return fdrpc.Reply{}, err
		}
		pr, pw, err := os.Pipe()
		if err != nil {
			return fdrpc.Reply{}, err
		}
		io.WriteString(pw, strings.ToUpper(string(text)))
		pw.Close()
		return fdrpc.Reply{Body: len(text), Files: []*os.File{pr}}, nil
	})
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(pw, "tessera")
	pw.Close()
	defer pr.Close()
	var n int
	files, err := client.Call(t.Context(), "shout", nil, &n, pr)
	if err != nil {
		t.Fatal(err)
	}
	defer files[0].Close()
	got, err := io.ReadAll(files[0])
	if err != nil || n != 7 || string(got) != "TESSERA" {
		t.Errorf("got %q, n=%d, err=%v", got, n, err)
	}
}

func TestErrorKeepsItsKind(t *testing.T) {
	t.Parallel()
	client := connect(t, func(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
		return fdrpc.Reply{}, errkind.Errorf(errkind.Limit, "no room for %s", r.Method)
	})
	_, err := client.Call(t.Context(), "more", nil, nil)
	if !errkind.Is(err, errkind.Limit) || err.Error() != "no room for more" {
		t.Errorf("err = %v (%v)", err, errkind.Of(err))
	}
}

func TestCallerMayGiveUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	client := connect(t, func(context.Context, *fdrpc.Conn, fdrpc.Request) (fdrpc.Reply, error) {
		<-release
		return fdrpc.Reply{}, nil
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := client.Call(ctx, "slow", nil, nil); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("err = %v", err)
	}
}

func TestUnknownFieldAndOversizeAreRefused(t *testing.T) {
	t.Parallel()
	type in struct {
		A int `json:"a"`
	}
	client := connect(t, func(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
		var v in
		return fdrpc.Reply{}, r.Decode(&v)
	})
	if _, err := client.Call(t.Context(), "m", map[string]int{"a": 1, "b": 2}, nil); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("unknown field: %v", err)
	}
	if _, err := client.Call(t.Context(), "m", strings.Repeat("x", fdrpc.MaxPacket), nil); err == nil {
		t.Error("an oversized message was sent")
	}
	if _, err := client.Call(t.Context(), "m", in{1}, nil); err != nil {
		t.Errorf("the connection did not survive: %v", err)
	}
}

func TestPeerCredentialsOverAPath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := fdrpc.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := fdrpc.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p, err := fdrpc.PeerOf(server)
	if err != nil || p.PID != os.Getpid() || p.UID != uint32(os.Getuid()) {
		t.Errorf("peer = %+v, %v", p, err)
	}
}

// An answer to whoever had the socket before is nobody's.
func TestSocketTakenOver(t *testing.T) {
	t.Parallel()
	here, there, err := fdrpc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := here.File()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := fdrpc.FromFile(there)
	if err != nil {
		t.Fatal(err)
	}
	asked, release := make(chan string, 2), make(chan struct{})
	server := fdrpc.New(peer, func(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
		asked <- r.Method
		if r.Method == "old" {
			<-release
		}
		return fdrpc.Reply{Body: r.Method}, nil
	})
	var owned sync.WaitGroup
	defer owned.Wait()
	owned.Go(func() { _ = server.Run(t.Context()) })
	old := fdrpc.New(here, nil)
	owned.Go(func() { _ = old.Run(t.Context()) })
	gone := make(chan error)
	go func() { gone <- old.Ask(t.Context(), "old", nil, nil) }()
	<-asked
	old.Close()
	if err := <-gone; !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("the one before: %v", err)
	}
	uc, err := fdrpc.FromFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	next := fdrpc.New(uc, nil).From(1 << 28)
	owned.Go(func() { _ = next.Run(t.Context()) })
	defer server.Close()
	defer next.Close()
	close(release) // the late answer comes first
	for range 3 {
		var answer string
		if err := next.Ask(t.Context(), "new", nil, &answer); err != nil || answer != "new" {
			t.Fatalf("%q, %v", answer, err)
		}
		<-asked
	}
}
