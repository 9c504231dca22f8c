package prismtoken_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken"
)

// ping is a strict binary call of ping with sequence number 7.
const ping = "800100010000000470696e6700000007" + "08000100000000" + "0b000200000001" + "78" + "00"

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	return must(hex.DecodeString(s))(t)
}

func frame(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// readFrame reads one answer.
func readFrame(t *testing.T, c net.Conn) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		t.Fatal(err)
	}
	out := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func wantEnd(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Errorf("the connection is still open (%d octets, %v)", n, err)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// TestBadMessages are frames that hold no proper call: each is answered, and
// the connection lives on.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	c := newRig(t).dial()
	for name, m := range map[string]struct{ payload, answer string }{
		"empty":              {"", "80010003" + "00000000" + "00000000"},
		"not strict":         {"0000000470696e670100000007", "80010003" + "00000000" + "00000000"},
		"other version":      {"800200010000000470696e6700000007", "80010003"},
		"name too long":      {"800100017fffffff70", "80010003"},
		"truncated":          {ping[:40], "800100030000000470696e6700000007"},
		"reply instead":      {strings.Replace(ping, "80010001", "80010002", 1), "800100030000000470696e6700000007"},
		"string beyond":      {"800100010000000470696e6700000007" + "08000100000000" + "0b00027fffffff" + "78" + "00", "800100030000000470696e6700000007"},
		"wrong type":         {"800100010000000470696e6700000007" + "0b000100000000" + "0b000200000001" + "78" + "00", "800100030000000470696e6700000007"},
		"list of nothing":    {"800100010000000470696e6700000007" + "0f0063" + "00" + "7fffffff", "800100030000000470696e6700000007"},
		"list too long":      {"800100010000000470696e6700000007" + "0f0063" + "0f" + "7fffffff" + strings.Repeat("0f7fffffff", 100), "800100030000000470696e6700000007"},
		"nested too deep":    {"800100010000000470696e6700000007" + strings.Repeat("0c0063", 5000), "800100030000000470696e6700000007"},
		"unknown field kept": {"800100010000000470696e6700000007" + "08006300000000" + "08000100000000" + "0b000200000001" + "78" + "00", "800100020000000470696e6700000007"},
	} {
		if _, err := c.Write(frame(unhex(t, m.payload))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := hex.EncodeToString(readFrame(t, c)); !strings.HasPrefix(got, m.answer) {
			t.Errorf("%s: %.64s, expected %s...", name, got, m.answer)
		}
		if _, err := c.Write(frame(unhex(t, ping))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := hex.EncodeToString(readFrame(t, c)); got != "800100020000000470696e6700000007"+"0b00000000000178"+"00" {
			t.Fatalf("%s: after it ping answered %s", name, got)
		}
	}
}

// TestBadFrames are lengths that no frame has: the client is told and the
// connection ends.
func TestBadFrames(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, header := range []string{"00100001", "7fffffff", "80010001", "ffffffff", "47455420"} {
		c := r.dial()
		if _, err := c.Write(unhex(t, header)); err != nil {
			t.Fatal(err)
		}
		if got := readFrame(t, c); !strings.Contains(string(got), "expected 0..1048576") {
			t.Errorf("%s: %q", header, got)
		}
		wantEnd(t, c)
	}
}

// TestDeadlines are clients that stop in the middle.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) {
		r.limits = prismtoken.Limits{Handshake: 2 * time.Second, Frame: 300 * time.Millisecond, Idle: 600 * time.Millisecond}
	})
	raw := must(net.Dial("tcp", r.address))(t)
	defer raw.Close()
	wantEnd(t, raw) // no handshake
	for name, part := range map[string][]byte{"nothing": nil, "half a header": {0, 0}, "half a frame": frame(unhex(t, ping))[:20]} {
		c := r.dial()
		if _, err := c.Write(part); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		wantEnd(t, c)
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s: ended after %s", name, d)
		}
	}
}

// inProgress waits until the server has begun n calls.
func (r *rig) inProgress(n int64) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); r.server.Stats().Requests < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%d calls have begun, expected %d", r.server.Stats().Requests, n)
		}
	}
}

// TestSlowPing waits in one connection while others go on.
func TestSlowPing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	slow, quick := r.client(), r.client()
	done := make(chan error, 1)
	go func() {
		_, err := slow.Ping(context.Background(), 3000, "slow")
		done <- err
	}()
	r.inProgress(1)
	began := time.Now()
	for range 50 {
		if _, err := quick.Ping(context.Background(), 0, "quick"); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(began); d > 2500*time.Millisecond {
		t.Errorf("50 pings took %s beside a waiting one", d)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestTLSVersions: 1.2 and 1.3, nothing older.
func TestTLSVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for version, accepted := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
		if (err == nil) != accepted {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			c.Close()
		}
	}
}

// TestOneRecord: an answer is one TLS record, also the first one.
func TestOneRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	raw := &recordCounter{Conn: must(net.Dial("tcp", r.address))(t)}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	echo := strings.Repeat("x", 9000)
	payload := unhex(t, "800100010000000470696e6700000007"+"08000100000000"+"0b0002"+"00002328")
	payload = append(append(payload, echo...), 0)
	for range 2 { // the first read also takes the session tickets
		raw.records = 0
		if _, err := c.Write(frame(payload)); err != nil {
			t.Fatal(err)
		}
		readFrame(t, c)
	}
	if raw.records != 1 {
		t.Errorf("the answer came in %d records", raw.records)
	}
}

// recordCounter counts the TLS records read.
type recordCounter struct {
	net.Conn
	records int
	pending int // octets left of the record
	header  []byte
}

func (r *recordCounter) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		if r.pending > 0 {
			take := min(r.pending, len(rest))
			r.pending -= take
			rest = rest[take:]
			continue
		}
		r.header = append(r.header, rest[0])
		rest = rest[1:]
		if len(r.header) == 5 {
			r.records++
			r.pending = int(binary.BigEndian.Uint16(r.header[3:]))
			r.header = r.header[:0]
		}
	}
	return n, err
}

// TestConnectionLimit: at the limit the connection that is idle for longest
// makes room, and one that works does not.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) { r.limits.Connections = 8 })
	busy := r.client()
	done := make(chan error, 1)
	go func() {
		_, err := busy.Ping(context.Background(), 1500, "busy")
		done <- err
	}()
	r.inProgress(1)
	oldest := r.dial()
	for range 20 {
		if _, err := r.client().Ping(context.Background(), 0, "new"); err != nil {
			t.Fatalf("a new connection was not served: %v", err)
		}
	}
	wantEnd(t, oldest)
	if err := <-done; err != nil {
		t.Errorf("the busy connection was closed: %v", err)
	}
	if n := r.server.Stats().Connections; n > 8 {
		t.Errorf("%d connections are open, the limit is 8", n)
	}
}

// TestIdleConnections vends beside idle connections and tells what one costs.
// conformance/clients does it with 10,000 and a live VCM.
func TestIdleConnections(t *testing.T) {
	r := newRig(t)
	r.load(group(123456, 1))
	r.user("vending", accounts.RoleIssueCredit)
	c := r.client()
	token := r.signIn(c, "vending")
	vend := func() time.Duration {
		began := time.Now()
		for range 50 {
			if _, err := c.IssueCreditToken(context.Background(), "m", token, newMeter("00000000000", 11, 123456), 0, 1, 0, 0); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(began)
	}
	alone := vend()
	const n = 2000
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range n / 4 {
				conn, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { conn.NetConn().Close() })
			}
		})
	}
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	beside := vend()
	t.Logf("50 tokens: %s alone, %s beside %d idle connections; %d KiB a connection, both ends", alone, beside, n,
		int64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/int64(n)/1024)
	if beside > 5*alone+2*time.Second {
		t.Errorf("50 tokens took %s, alone %s", beside, alone)
	}
	if got := r.server.Stats().Connections; got < int64(n) {
		t.Errorf("%d connections are open, expected %d", got, n)
	}
}

// TestDrain: at the end a call in progress is answered, idle connections end.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	busy, idle := r.client(), r.dial()
	done := make(chan error, 1)
	go func() {
		got, err := busy.Ping(context.Background(), 500, "last")
		if err == nil && got != "last" {
			err = errors.New(got)
		}
		done <- err
	}()
	r.inProgress(1)
	go r.stop()
	wantEnd(t, idle)
	if err := <-done; err != nil {
		t.Errorf("the call in progress: %v", err)
	}
	r.stop()
	if _, err := net.DialTimeout("tcp", r.address, time.Second); err == nil {
		t.Error("the listener is still open")
	}
}
