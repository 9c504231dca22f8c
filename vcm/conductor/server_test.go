package conductor_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
)

func TestSocketLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{server: func(c *conductor.Config) { c.MaxSockets = 3 }})
	var open []*conn
	for range 3 {
		c := r.dial()
		c.exchange(frameOf("GL?EC00001x"))
		open = append(open, c)
	}
	r.dial().closed()
	if err := open[0].Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		c := r.dial()
		if _, err := c.Write(frameOf("GL?EC00001x")); err == nil {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.ReadFull(c, make([]byte, 8)); err == nil {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("a freed place is not given away")
		}
	}
	if got := textOf(t, open[1].exchange(frameOf("GL?EC00001x"))); got != "GL!EC00001x" {
		t.Errorf("%s", got)
	}
}

func TestIdleAndSlowPeers(t *testing.T) {
	t.Parallel()
	short := func(c *conductor.Config) { c.IdleTimeout, c.FrameTimeout = 150*time.Millisecond, 100*time.Millisecond }
	r := newRig(t, option{server: short})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		c := r.dial()
		c.exchange(frameOf("GL?EC00001x"))
		c.closed()
	})
	t.Run("half a frame", func(t *testing.T) {
		t.Parallel()
		c := r.dial()
		if _, err := c.Write(frameOf("SM?DI")[:9]); err != nil {
			t.Fatal(err)
		}
		c.closed()
	})
	t.Run("no frame", func(t *testing.T) {
		t.Parallel()
		for _, head := range []string{"\x00\x00", "\x00\x06\x01\x02\x03\x04\x05\x06", "\xFF\xFF", "GET / HTTP/1.1\r\n\r\n"} {
			c := r.dial()
			if _, err := c.Write([]byte(head)); err != nil {
				t.Fatal(err)
			}
			c.closed()
		}
	})
	t.Run("does not read", func(t *testing.T) {
		t.Parallel()
		ours, theirs := net.Pipe()
		defer theirs.Close()
		done := make(chan error, 1)
		cfg := conductor.Config{Module: r.module}
		short(&cfg)
		go func() { done <- conductor.New(cfg).Stream(context.Background(), "peer", ours) }()
		if _, err := theirs.Write(frameOf("GL?EC00001x")); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "did not take a response") {
				t.Errorf("%v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the peer keeps its place")
		}
	})
	t.Run("ends properly", func(t *testing.T) {
		t.Parallel()
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- conductor.New(conductor.Config{Module: r.module}).Stream(context.Background(), "peer", ours)
		}()
		c := &conn{t, theirs}
		if got := textOf(t, c.exchange(frameOf("SM?DI"))); got != "SM!DI00P89051616~PSTS64V10~" {
			t.Errorf("%s", got)
		}
		_ = theirs.Close()
		if err := <-done; err != nil {
			t.Errorf("%v", err)
		}
	})
}

// A server can be replaced by one with other settings; the module goes on.
func TestRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	newClient(t, r.address).loadKeys(r, group(123456))
	c := r.dial()
	c.exchange(frameOf("SM?DI"))
	r.stop()
	c.closed()
	r.serve(func(c *conductor.Config) { c.Trace = conductor.TraceVerbose })
	if v := newClient(t, r.address).must(1, "GA", "N1"); !strings.Contains(v[0], "SGC123456") {
		t.Errorf("GA %v", v)
	}
}

// slowVault takes a moment for each transaction and counts them.
type slowVault struct {
	*memory
	moment time.Duration
	views  atomic.Int64
}

func (v *slowVault) View(ctx context.Context, fn func(tsm.Tx) error) error {
	v.views.Add(1)
	time.Sleep(v.moment)
	return v.memory.View(ctx, fn)
}

// Sockets take turns: however much each of them has sent ahead, a command waits
// for about one of every other socket. That it does wait for those shows that the
// measure sees the queue.
func TestFairness(t *testing.T) {
	t.Parallel()
	for _, floods := range []int{1, 20} {
		vault := &slowVault{memory: newMemory(), moment: 2 * time.Millisecond}
		r := newRig(t, option{vault: vault, server: func(c *conductor.Config) { c.InFlight = 1 }})
		var reading sync.WaitGroup
		var flooding []*conn
		for range floods {
			flood := r.dial()
			flooding = append(flooding, flood)
			reading.Go(func() { _, _ = io.Copy(io.Discard, flood) })
			if _, err := flood.Write(bytes.Repeat(frameOf("SM?DI"), 500)); err != nil {
				t.Fatal(err)
			}
		}
		await(t, func() bool { return r.server.Status().Commands > uint64(2*floods) })
		quiet := r.dial()
		var waited int64
		const commands = 5
		for range commands {
			before := vault.views.Load()
			quiet.exchange(frameOf("SM?DI"))
			waited += vault.views.Load() - before
		}
		if most, least := int64(commands*(2*floods+3)), int64(commands*floods/2); waited > most || waited < least {
			t.Errorf("%d commands of %d other sockets went before %d of the quiet socket, not %d to %d", waited, floods, commands, least, most)
		}
		if done := vault.views.Load(); done > int64(400*floods) {
			t.Errorf("the flood was over (%d): this test showed nothing", done)
		}
		for _, flood := range flooding {
			_ = flood.Close()
		}
		reading.Wait()
	}
}

// A peer is not dropped for the time that the module takes.
func TestSlowModule(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{
		vault:  &slowVault{memory: newMemory(), moment: 300 * time.Millisecond},
		server: func(c *conductor.Config) { c.FrameTimeout = 100 * time.Millisecond },
	})
	if got := textOf(t, r.dial().exchange(frameOf("SM?DI"))); got != "SM!DI00P89051616~PSTS64V10~" {
		t.Errorf("%s", got)
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// Traces show commands as the level says, and never keys or tokens.
func TestTrace(t *testing.T) {
	t.Parallel()
	for level, c := range map[conductor.TraceLevel]struct{ shown, hidden []string }{
		conductor.TraceDefault: {nil, []string{"SM?VC", "parameters"}},
		conductor.TraceVerbose: {[]string{"SM?VC", "SM?KL", "status=00", "status=63"}, []string{"parameters"}},
		conductor.TraceDebug:   {[]string{"SM?VC", "parameters=N1~P" + pan}, nil},
	} {
		var log lockedBuffer
		r := newRig(t, option{server: func(cfg *conductor.Config) {
			cfg.Trace, cfg.Log = level, slog.New(slog.NewTextHandler(&log, nil))
		}})
		cl := newClient(t, r.address)
		cl.loadKeys(r, group(123456))
		token := cl.must(2, "VC", "N1", "P"+pan, "N1", "N11", "N2", "N0", "H0001", "H"+tidOf(noon))
		cl.must(5, "VT", "N1", "P"+pan, "N1", "N11", "P"+token[1])
		cl.call("GA", "N0")
		r.stop()
		text := log.text()
		for _, s := range c.shown {
			if !strings.Contains(text, s) {
				t.Errorf("level %d does not show %q:\n%s", level, s, text)
			}
		}
		for _, s := range append(c.hidden, token[0], token[1], "WVK", complianceKey) {
			if strings.Contains(text, s) {
				t.Errorf("level %d shows %q", level, s)
			}
		}
	}
	for name, want := range map[string]conductor.TraceLevel{"Default": 0, "Verbose": 1, "Debug": 2} {
		if got, err := conductor.ParseTraceLevel(name); got != want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := conductor.ParseTraceLevel("verbose"); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("%v", err)
	}
}

// A listener that somebody closes is an error; one that its context ends is not.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- conductor.New(conductor.Config{Module: r.module}).Serve(context.Background(), l) }()
	_ = l.Close()
	if err := <-done; err == nil {
		t.Error("a closed listener went unnoticed")
	}
}
