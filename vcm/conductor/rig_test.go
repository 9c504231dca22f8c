package conductor_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
)

const (
	moduleID      = "89051616"
	pan           = "600727000000000009"
	complianceKey = "ABABABABABABABAB949494949494949401234567"
)

var noon = time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)

// memory is a vault without a disk.
type memory struct {
	mu   sync.Mutex
	data map[string][]byte
}

func newMemory() *memory { return &memory{data: map[string][]byte{}} }

func (v *memory) View(_ context.Context, fn func(tsm.Tx) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return fn(&memoryTx{v.data})
}

func (v *memory) Update(_ context.Context, fn func(tsm.Tx) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	tx := &memoryTx{maps.Clone(v.data)}
	if err := fn(tx); err != nil {
		return err
	}
	v.data = tx.data
	return nil
}

type memoryTx struct{ data map[string][]byte }

func (t *memoryTx) Get(key []byte) ([]byte, error) { return t.data[string(key)], nil }
func (t *memoryTx) Put(key, value []byte) error {
	t.data[string(key)] = slices.Clone(value)
	return nil
}
func (t *memoryTx) Delete(key []byte) error { delete(t.data, string(key)); return nil }
func (t *memoryTx) Range(prefix []byte, fn func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(t.data)) {
		if strings.HasPrefix(k, string(prefix)) {
			if err := fn([]byte(k), t.data[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// rig is a module, its KMC and a running server.
type rig struct {
	t       testing.TB
	vault   tsm.Vault
	clock   *clock.Fake
	module  *tsm.Module
	kmc     *kmc.KMC
	server  *conductor.Server
	address string
	stop    func()
}

type option struct {
	module func(*tsm.Config)
	server func(*conductor.Config)
	vault  tsm.Vault
}

func newRig(t testing.TB, o option) *rig {
	t.Helper()
	r := &rig{t: t, vault: o.vault, clock: clock.NewFake(noon)}
	if r.vault == nil {
		r.vault = newMemory()
	}
	cfg := tsm.Config{Vault: r.vault, ModuleID: moduleID, Clock: r.clock}
	if o.module != nil {
		o.module(&cfg)
	}
	var err error
	if r.module, err = tsm.Open(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	r.kmc = newKMC(t)
	if _, err := r.kmc.AddModule(r.module.PublicKeyRecord()); err != nil {
		t.Fatal(err)
	}
	r.serve(o.server)
	return r
}

func newKMC(t testing.TB) *kmc.KMC {
	t.Helper()
	k, err := kmc.Init(t.TempDir(), "TEST-KMC", noon.AddDate(-1, 0, 0), noon.AddDate(5, 0, 0), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// serve starts a server on a free port; stop ends it.
func (r *rig) serve(change func(*conductor.Config)) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := conductor.Config{Module: r.module}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r.server = conductor.New(cfg)
	go func() { done <- r.server.Serve(ctx, l) }()
	r.address = l.Addr().String()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("serve: %v", err)
			}
		})
	}
	r.t.Cleanup(r.stop)
}

// group is a key of the compliance tests' shape.
func group(sgc int, change ...func(*kmc.Group)) kmc.Group {
	g := kmc.Group{
		SGC: sgc, KRN: 1, KTC: "VUDK", BDT: 2014, DKG: 4, KEN: 255, SBM: 0xFF, ULM: tsm.Unlimited, CLM: tsm.Unlimited,
		ACT: time.Date(2014, 1, 1, 0, 0, 0, 0, time.UTC), Refresh: 90, SGN: "TEST", Key: complianceKey,
	}
	for _, c := range change {
		c(&g)
	}
	return g
}

// conn is a raw connection that fails its test where a frame does.
type conn struct {
	t testing.TB
	net.Conn
}

func (r *rig) dial() *conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return &conn{r.t, c}
}

// exchange sends the octets of a frame and returns those of the answer.
func (c *conn) exchange(frame []byte) []byte {
	c.t.Helper()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.Write(frame); err != nil {
		c.t.Fatal(err)
	}
	return c.receive()
}

func (c *conn) receive() []byte {
	c.t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(c, head); err != nil {
		c.t.Fatal(err)
	}
	body := make([]byte, int(head[0])<<8|int(head[1]))
	if _, err := io.ReadFull(c, body); err != nil {
		c.t.Fatal(err)
	}
	return append(head, body...)
}

// closed fails unless the server closes the connection soon.
func (c *conn) closed() {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("the connection is open: %d octets, %v", n, err)
	}
}

type vectorFrame struct {
	Text, CRC, Serial string
	TCP               string `json:"tcp_hex"`
}

func readVectors(t testing.TB) (frames map[string]vectorFrame, keys map[string]string) {
	t.Helper()
	raw, err := os.ReadFile("testdata/key-management.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Frames struct {
			SMAPI map[string]vectorFrame `json:"sm_api"`
		} `json:"frames"`
		KeyManagement map[string]string `json:"keyManagement"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	return f.Frames.SMAPI, f.KeyManagement
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vectorModule makes the module draw the published vector's keys.
func vectorModule(t testing.TB, keys map[string]string) func(*tsm.Config) {
	return func(c *tsm.Config) {
		c.Rand = bytes.NewReader(bytes.Join([][]byte{
			unhex(t, keys["d_SM_static"]), make([]byte, 8), unhex(t, keys["d_SM_eph"]), unhex(t, keys["d_SM_eph"]),
		}, nil))
	}
}
