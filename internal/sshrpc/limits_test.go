package sshrpc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
)

func limits(l sshrpc.Limits) func(*sshrpc.ServerConfig) {
	return func(cfg *sshrpc.ServerConfig) { cfg.Limits = l }
}

// rawSession opens the subsystem without our client.
func (w *world) rawSession(t *testing.T) (*ssh.Client, ssh.Channel) {
	t.Helper()
	conn, err := ssh.Dial("tcp", w.address, &ssh.ClientConfig{
		User: "x", Auth: []ssh.AuthMethod{ssh.PublicKeys(w.client)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, requests, err := conn.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{service}))
	if err != nil || !ok {
		t.Fatalf("subsystem: %v, %v", ok, err)
	}
	return conn, ch
}

func TestBadFramesEndTheSessionAndNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, limits(sshrpc.Limits{Frame: 1000, FrameTime: 200 * time.Millisecond}))
	_, other := w.dial(t)
	call := []byte("\x80\x01\x00\x01\x00\x00\x00\x08showKeys\x00\x00\x00\x01\x00")
	for what, frame := range map[string][]byte{
		"too large":     binary.BigEndian.AppendUint32(nil, 1001),
		"huge":          {0xff, 0xff, 0xff, 0xff},
		"empty":         {0, 0, 0, 0},
		"half a length": {0, 0},
		"half a frame":  {0, 0, 0, 10, 1, 2, 3},
		"no Thrift":     append([]byte{0, 0, 0, 4}, "GET "...),
		"a reply":       append([]byte{0, 0, 0, 21}, bytes.Replace(call, []byte{1, 0, 1}, []byte{1, 0, 2}, 1)...),
		"more behind":   append([]byte{0, 0, 0, 23}, append(bytes.Clone(call), "xx"...)...),
	} {
		_, ch := w.rawSession(t)
		if _, err := ch.Write(frame); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(ch)
		if len(answer) > 0 || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%s: answered %q, %v", what, answer, err)
		}
		if _, err := other.ShowKeys(t.Context()); err != nil {
			t.Errorf("%s: another session suffered: %v", what, err)
		}
	}
	// The positive control: the same bytes without the fault are answered.
	_, ch := w.rawSession(t)
	if _, err := ch.Write(append([]byte{0, 0, 0, byte(len(call))}, call...)); err != nil {
		t.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(ch, head[:]); err != nil || head == [4]byte{} {
		t.Errorf("a good frame was not answered: %v", err)
	}
}

func TestUnknownMethodIsAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, nil)
	_, ch := w.rawSession(t)
	call := []byte("\x00\x00\x00\x14\x80\x01\x00\x01\x00\x00\x00\x07nothing\x00\x00\x00\x01\x00")
	if _, err := ch.Write(call); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	if n, err := ch.Read(answer); err != nil || n == 0 {
		t.Fatalf("no answer: %v", err)
	}
}

func TestConnectionCaps(t *testing.T) {
	t.Parallel()
	for what, l := range map[string]sshrpc.Limits{
		"total":      {Connections: 2},
		"per source": {PerSource: 2},
	} {
		w := newWorld(t, handler{show: oneKey}, limits(l))
		first, _ := w.dial(t)
		w.dial(t)
		if c, err := sshrpc.Dial(t.Context(), w.config()); err == nil {
			t.Errorf("%s: a third connection was accepted", what)
			_ = c.Close()
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool {
			c, err := sshrpc.Dial(t.Context(), w.config())
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
	}
}

func TestSilentClientsAreDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, limits(sshrpc.Limits{Unauthenticated: 2, Handshake: 300 * time.Millisecond}))
	for range 2 {
		nc, err := net.Dial("tcp", w.address)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	if _, err := sshrpc.Dial(t.Context(), w.config()); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("two clients are still authenticating: %v", err)
	}
	eventually(t, func() bool {
		c, err := sshrpc.Dial(t.Context(), w.config())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func TestHandshakeDeadlineDoesNotEndSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, limits(sshrpc.Limits{Handshake: 300 * time.Millisecond}))
	_, client := w.dial(t)
	time.Sleep(400 * time.Millisecond)
	if _, err := client.ShowKeys(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestIdleConnectionsAreDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, limits(sshrpc.Limits{Idle: 100 * time.Millisecond}))
	conn, _ := w.rawSession(t)
	ended := make(chan struct{})
	go func() { _ = conn.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("an idle connection stays")
	}
}

func TestSessionCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, limits(sshrpc.Limits{Sessions: 2}))
	conn, _ := w.rawSession(t)
	if _, _, err := conn.OpenChannel("session", nil); err != nil {
		t.Fatal(err)
	}
	_, _, err := conn.OpenChannel("session", nil)
	var refused *ssh.OpenChannelError
	if !errors.As(err, &refused) || refused.Reason != ssh.ResourceShortage {
		t.Errorf("third session: %v", err)
	}
}

// flaky is a listener whose accept fails now and then.
type flaky struct {
	net.Listener
	failures atomic.Int32
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.failures.Add(-1) >= 0 {
		return nil, syscall.EMFILE
	}
	return f.Listener.Accept()
}

func TestAcceptErrorsAreSurvived(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &flaky{Listener: l}
	f.failures.Store(3)
	unit, client := sshrpctest.Key(t), sshrpctest.Key(t)
	var log syncBuffer
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- sshrpc.Serve(ctx, f, sshrpc.ServerConfig{
			Service: service, HostKey: sshrpctest.HostKey(t, unit, principal),
			Authorised: func() (ssh.PublicKey, bool) { return client.PublicKey(), true },
			Processor:  sshrpctest.Processor(sshadmin.NewSshAdminProcessor(handler{show: oneKey})),
			Log:        slog.New(slog.NewTextHandler(&log, nil)),
		})
	}()
	c, err := sshrpc.Dial(t.Context(), sshrpc.ClientConfig{Service: service, Address: l.Addr().String(), Signer: client,
		UnitKey: unit.PublicKey(), Principal: principal})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v", err)
	}
	if n := strings.Count(log.String(), "accept failed"); n != 3 {
		t.Errorf("%d accept errors in the log, want 3", n)
	}
}

func TestContextEndDrains(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unit, key := sshrpctest.Key(t), sshrpctest.Key(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- sshrpc.Serve(ctx, l, sshrpc.ServerConfig{
			Service: service, HostKey: sshrpctest.HostKey(t, unit, principal),
			Authorised: func() (ssh.PublicKey, bool) { return key.PublicKey(), true },
			Processor: sshrpctest.Processor(sshadmin.NewSshAdminProcessor(handler{show: func(ctx context.Context) ([]*sshadmin.ServiceKey, error) {
				close(entered)
				<-release
				return oneKey(ctx)
			}})),
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
	}()
	dial := func() *sshadmin.SshAdminClient {
		c, err := sshrpc.Dial(t.Context(), sshrpc.ClientConfig{Service: service, Address: l.Addr().String(), Signer: key,
			UnitKey: unit.PublicKey(), Principal: principal})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return sshadmin.NewSshAdminClient(c.Thrift())
	}
	busy := dial()
	idle, err := ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{
		User: "x", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	answered := make(chan error, 1)
	go func() { _, err := busy.ShowKeys(t.Context()); answered <- err }()
	<-entered
	cancel()
	closed := make(chan struct{})
	go func() { _ = idle.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("an idle connection stays")
	}
	select {
	case err := <-ended:
		t.Fatalf("Serve returned with a call in progress: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the call in progress was cut off: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestRawStream(t *testing.T) {
	t.Parallel()
	echo := func(_ context.Context, s sshrpc.Session, stream io.ReadWriteCloser) error {
		if s.Service != service || s.Key == nil {
			t.Errorf("session %+v", s)
		}
		_, err := io.Copy(stream, stream)
		return err
	}
	w := newWorld(t, handler{}, func(cfg *sshrpc.ServerConfig) { cfg.Processor, cfg.Raw = nil, echo })
	c, err := sshrpc.Dial(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c.Stream(), "SM?DI"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c.Stream(), got); err != nil || string(got) != "SM?DI" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestMisuseIsNoticed(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := sshrpc.Serve(t.Context(), l, sshrpc.ServerConfig{Service: service}); err == nil {
		t.Error("a service without a host key was started")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("the listener stays open")
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Error("did not happen within 10 s")
}
