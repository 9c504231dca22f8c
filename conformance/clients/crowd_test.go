package clients_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"flag"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
)

var crowdSize = flag.Int("clients.idle", 10000, "idle connections beside which tokens are issued")

// TestCrowd: idle connections, half-sent frames, oversized frames, unknown methods
// and broken handshakes neither stop nor slow the live service for somebody who vends.
func TestCrowd(t *testing.T) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	files.Cur = files.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if room := int(files.Max) - 500; room < *crowdSize {
		t.Fatalf("%d idle connections need more descriptors than the %d that this process may have", *crowdSize, files.Max)
	}
	r, v := binaries.Full(t, rig.Plan{Name: "crowd", Groups: []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "Crowd"}}})
	accounts, err := r.Accounts("123456", 1, 50)
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	vend := func(n int) time.Duration {
		t.Helper()
		times := make([]time.Duration, 0, n)
		for i := range n {
			began := time.Now()
			if _, err := c.API.IssueCreditToken(t.Context(), vending.MessageID(), c.Token, accounts[i%len(accounts)].Config, 0, 1, 0, 0); err != nil {
				t.Fatal(err)
			}
			times = append(times, time.Since(began))
		}
		slices.Sort(times)
		return times[n/2]
	}
	const tokens = 400
	vend(tokens) // warm
	alone := vend(tokens)

	server, err := v.Server()
	if err != nil {
		t.Fatal(err)
	}
	crowd := &crowd{t: t, address: server.Address}
	defer crowd.leave()
	began := time.Now()
	crowd.come(*crowdSize)
	t.Logf("%d connections were made in %s", len(crowd.conns), time.Since(began).Round(time.Millisecond))
	// Every twentieth has begun a frame and goes no further.
	for i, conn := range crowd.conns {
		if i%20 == 0 {
			if _, err := conn.Write([]byte{0, 0, 1, 0, 0x80, 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	idle := vend(tokens)

	ctx, cancel := context.WithCancel(t.Context())
	var vandals sync.WaitGroup
	var done [3]atomic.Int64
	for kind, frame := range [][]byte{
		{0x7f, 0xff, 0xff, 0xff}, // far too large
		append([]byte{0, 0, 0, 16, 0x80, 1, 0, 1, 0, 0, 0, 4}, "none\x00\x00\x00\x01"...),
		{0x16, 0x03, 0x01, 0x00, 0x01, 0xff}, // not even TLS
	} {
		vandals.Go(func() {
			for ctx.Err() == nil {
				if crowd.vandalise(frame, kind == 2) {
					done[kind].Add(1)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	attacked := vend(tokens)
	cancel()
	vandals.Wait()

	t.Logf("a token takes %s alone, %s beside %d idle connections, %s with %d oversized frames, %d unknown methods and %d broken handshakes besides (median)",
		alone, idle, *crowdSize, attacked, done[0].Load(), done[1].Load(), done[2].Load())
	const noise = 5 * time.Millisecond
	if idle > 3*alone+noise || attacked > 3*alone+2*noise {
		t.Errorf("the service became slow")
	}
	for kind := range done {
		if done[kind].Load() == 0 {
			t.Errorf("attack %d was not answered once", kind)
		}
	}
	crowd.stillThere()
}

// crowd is a number of connections that nobody uses.
type crowd struct {
	t       *testing.T
	address string
	mu      sync.Mutex
	conns   []*tls.Conn
}

func (c *crowd) dial() (*tls.Conn, error) {
	// Whom one talks to does not matter to a crowd.
	return tls.Dial("tcp", c.address, &tls.Config{InsecureSkipVerify: true})
}

func (c *crowd) come(n int) {
	c.t.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				conn, err := c.dial()
				if err != nil {
					c.t.Error(err)
					return
				}
				c.mu.Lock()
				c.conns = append(c.conns, conn)
				c.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func (c *crowd) leave() {
	for _, conn := range c.conns {
		_ = conn.NetConn().Close()
	}
}

// vandalise sends octets and reports whether the service answered in any way.
func (c *crowd) vandalise(octets []byte, plain bool) bool {
	conn, err := c.dial()
	if err != nil {
		return false
	}
	defer conn.NetConn().Close()
	var to io.ReadWriter = conn
	if plain {
		to = conn.NetConn()
	}
	_ = conn.NetConn().SetDeadline(time.Now().Add(10 * time.Second))
	_, err = to.Write(octets)
	n, readErr := to.Read(make([]byte, 1))
	return err == nil && (n > 0 || readErr == io.EOF)
}

// stillThere calls over a sample of the connections: they are open, and served.
func (c *crowd) stillThere() {
	c.t.Helper()
	payload := append([]byte{0x80, 1, 0, 1, 0, 0, 0, 4}, "ping\x00\x00\x00\x07\x08\x00\x01\x00\x00\x00\x00\x0b\x00\x02\x00\x00\x00\x01x\x00"...)
	frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
	served := 0
	for i, conn := range c.conns {
		if i%20 != 7 {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write(frame); err != nil {
			c.t.Errorf("connection %d is gone: %v", i, err)
			continue
		}
		if _, err := bufio.NewReader(conn).ReadByte(); err != nil {
			c.t.Errorf("connection %d is not served: %v", i, err)
			continue
		}
		served++
	}
	if served < len(c.conns)/20 {
		c.t.Errorf("%d of %d idle connections are served", served, len(c.conns)/20)
	}
}
