// Package rigtest gives rigs to tests: the binaries are built once a test
// process, and a rig ends with its test.
package rigtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// EnvBin names a folder with binaries to use instead of building them.
const EnvBin = "TESSERAE_BIN"

// Binaries are those of a test process, built when first asked for.
type Binaries struct {
	once sync.Once
	dir  string
	temp bool
	err  error
}

// Main runs the tests of a package and removes what was built for them.
func (b *Binaries) Main(m *testing.M) int {
	code := m.Run()
	if b.temp {
		_ = os.RemoveAll(b.dir)
	}
	return code
}

// Dir is the folder with the binaries.
func (b *Binaries) Dir(t testing.TB) string {
	t.Helper()
	b.once.Do(b.make)
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.dir
}

func (b *Binaries) make() {
	if b.dir = os.Getenv(EnvBin); b.dir != "" {
		if b.dir, b.err = filepath.Abs(b.dir); b.err == nil {
			b.err = rig.Complete(b.dir)
		}
		return
	}
	if b.dir, b.err = os.MkdirTemp("", "tess-bin-"); b.err != nil {
		return
	}
	b.temp = true
	// Where the orchestrator runs as root, VCMs run as somebody else.
	if b.err = os.Chmod(b.dir, 0o755); b.err == nil {
		b.err = rig.Build(context.Background(), b.dir)
	}
}

// New makes a rig for t. When t ends the rig is stopped, which fails the test if
// a process is left or did not end by itself; what it did is shown if the test failed.
func (b *Binaries) New(t testing.TB) *rig.Rig {
	t.Helper()
	bin := b.Dir(t)
	// Not the test's own folder: its name is too long for sockets.
	dir, err := os.MkdirTemp("", "tess-")
	if err != nil {
		t.Fatal(err)
	}
	var said log
	r := rig.New(bin, dir, &said)
	t.Cleanup(func() {
		daemons := r.Daemons()
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the rig in %s did:\n%s", dir, said.String())
			for _, d := range daemons {
				t.Logf("%s said last:\n%s", d.Name, r.Tail(d))
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Full makes a rig with a VCM that vends.
func (b *Binaries) Full(t testing.TB, p rig.Plan) (*rig.Rig, *rig.VCM) {
	t.Helper()
	r := b.New(t)
	v, err := r.Full(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return r, v
}

// log keeps the end of what is written to it.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
	cut int
}

const maxLog = 256 << 10

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if over := l.buf.Len() + len(p) - maxLog; over > 0 {
		l.cut += len(l.buf.Next(over))
	}
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut > 0 {
		return fmt.Sprintf("(%d bytes before this)\n%s", l.cut, l.buf.String())
	}
	return l.buf.String()
}
