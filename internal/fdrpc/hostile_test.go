package fdrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// serve runs a Conn over one end of a pair and returns the bare other end and
// what Run returned.
func serve(t *testing.T, h Handler) (*net.UnixConn, *Conn, <-chan error) {
	t.Helper()
	bare, there, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	uc, err := FromFile(there)
	if err != nil {
		t.Fatal(err)
	}
	c := New(uc, h)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- c.Run(ctx) })
	t.Cleanup(func() { cancel(); bare.Close(); wg.Wait() })
	return bare, c, done
}

func TestMalformedPacketEndsTheConnection(t *testing.T) {
	t.Parallel()
	for _, packet := range []string{
		"{", "nonsense", `{"id":1}}`, `{"id":1} {"id":2}`, `{"id":-1}`, `{"id":1,"other":2}`, "[]", strings.Repeat("[", 50_000),
	} {
		bare, _, done := serve(t, nil)
		if _, err := bare.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "malformed") {
				t.Errorf("%.20q: %v", packet, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%.20q: the connection lives on", packet)
		}
	}
}

func TestOversizedPacketEndsTheConnection(t *testing.T) {
	t.Parallel()
	bare, _, done := serve(t, nil)
	if _, err := bare.Write(make([]byte, MaxPacket+1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Not parallel: it counts the process's descriptors.
func TestUnwantedDescriptorsAreClosed(t *testing.T) {
	bare, c, done := serve(t, nil)
	call := make(chan error, 1)
	go func() { call <- c.Ask(context.Background(), "stats", nil, nil) }()
	buf := make([]byte, 1000)
	n, err := bare.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	rights := unix.UnixRights(0, 1, 2)
	for _, packet := range []string{
		`{"id":99,"re":true}`,                // an answer to nothing
		`{"id":1,"re":true,"kind":"limit"}`,  // an answer to Ask
		`{"id":1,"re":true}`,                 // and again
		`{"id":7,"method":"x","body":null}x`, // malformed: the end
	} {
		if _, _, err := bare.WriteMsgUnix([]byte(packet), rights, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-call; !errkind.Is(err, errkind.Limit) {
		t.Errorf("Ask: %v", err)
	}
	<-done
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	bare, c, done := serve(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	// Nobody reads at the other end: the socket fills, and callers still return.
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := c.Ask(ctx, "m", strings.Repeat("x", MaxPacket/2), nil); !errkind.Is(err, errkind.Unavailable) {
				t.Errorf("%v", err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	bare.Close()
	wg.Wait()
	if err := <-done; err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("run: %v", err)
	}
}

// A peer that is silent for long is no reason to end a connection that is to last.
func TestLastingConnectionBearsASilentPeer(t *testing.T) {
	t.Parallel()
	bare, c, done := serve(t, func(context.Context, *Conn, Request) (Reply, error) {
		return Reply{Body: strings.Repeat("x", MaxPacket/2)}, nil
	})
	c.Lasting()
	// More answers than the socket holds.
	for id := 1; id <= 20; id++ {
		if _, err := fmt.Fprintf(bare, `{"id":%d,"method":"m"}`, id); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(writeTimeout + time.Second):
	}
	read := func() (m message) {
		t.Helper()
		p := make([]byte, MaxPacket)
		_ = bare.SetReadDeadline(time.Now().Add(3 * writeTimeout))
		n, err := bare.Read(p)
		if err == nil {
			m, err = decode(p[:n], 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if _, err := bare.Write([]byte(`{"id":99,"method":"last"}`)); err != nil {
		t.Fatal(err)
	}
	for range 22 {
		if read().ID == 99 {
			return
		}
	}
	t.Error("the last call has no answer")
}

func TestLongErrorFitsAPacket(t *testing.T) {
	t.Parallel()
	here, there, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	uc, err := FromFile(there)
	if err != nil {
		t.Fatal(err)
	}
	client := New(here, nil)
	server := New(uc, func(_ context.Context, _ *Conn, r Request) (Reply, error) {
		if r.Method == "body" {
			return Reply{Body: strings.Repeat("x", MaxPacket)}, nil
		}
		return Reply{}, errkind.Errorf(errkind.Refused, "%s", strings.Repeat("\x00\xff<", MaxPacket))
	})
	var wg sync.WaitGroup
	for _, c := range []*Conn{client, server} {
		wg.Go(func() { _ = c.Run(context.Background()) })
	}
	defer wg.Wait()
	defer client.Close()
	if err := client.Ask(t.Context(), "error", nil, nil); !errkind.Is(err, errkind.Refused) {
		t.Errorf("long error: %.60v", err)
	}
	if err := client.Ask(t.Context(), "body", nil, nil); !errkind.Is(err, errkind.Internal) || !strings.Contains(err.Error(), "exceeds") {
		t.Errorf("long body: %.60v", err)
	}
}

// Sending a descriptor must leave its description as it was: a listener that
// somebody accepts on must not become blocking.
func TestSendingKeepsADescriptorNonBlocking(t *testing.T) {
	t.Parallel()
	bare, c, _ := serve(t, nil)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	defer pw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_ = c.Ask(ctx, "take", nil, nil, pr)
	raw, err := pr.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var flags int
	if err := raw.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) }); err != nil {
		t.Fatal(err)
	}
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %o, %v", flags, err)
	}
	_ = bare
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":1,"method":"identity","body":null}`), 0)
	f.Add([]byte(`{"id":18446744073709551615,"re":true,"kind":"limit","error":"x"}`), 0)
	f.Add([]byte(`{"id":1}}`), 0)
	f.Add([]byte{}, unix.MSG_TRUNC)
	f.Fuzz(func(t *testing.T, p []byte, flags int) {
		m, err := decode(p, flags)
		if err != nil {
			return
		}
		q, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q was accepted but cannot be printed: %v", p, err)
		}
		again, err := decode(q, 0)
		if err != nil {
			t.Fatalf("%q became %q: %v", p, q, err)
		}
		if m.Body != nil && again.Body != nil { // spaces within a body are the sender's
			m.Body, again.Body = nil, nil
		}
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v became %+v", m, again)
		}
	})
}
