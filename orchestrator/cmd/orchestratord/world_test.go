package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/orchestrator/platform"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

const patience = 60 * time.Second

// binaries are built once, as a newcomer would.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tesserae-bin-")
	if err != nil {
		return "", err
	}
	built.Store(&dir)
	cmd := exec.Command("go", "build", "-o", dir+"/",
		"./hsm/cmd/hsmd", "./vcm/cmd/vcmd", "./licensing/cmd/vendor", "./orchestrator/cmd/orchestratord")
	cmd.Dir = "../../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build: %w\n%s", err, out)
	}
	// Where the orchestrator runs as root, VCMs run as somebody else.
	return dir, os.Chmod(dir, 0o755)
})

// built is the folder of binaries, to be removed at the end.
var built atomic.Pointer[string]

// world is a unit with its processes.
type world struct {
	t       *testing.T
	bin     string
	dir     string
	esn     string
	hsmd    *process
	orch    *process
	extra   []string // options of orchestratord
	keys    map[string]ssh.Signer
	metrics string  // address
	nobody  bool    // everything runs without privilege, also where the test has it
	host    netHost // where everything runs
}

// process is a running daemon.
type process struct {
	cmd  *exec.Cmd
	log  *syncBuffer
	done chan struct{}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newWorld makes a unit with a warrant, starts both daemons and enrols.
func newWorld(t *testing.T, extra ...string) *world {
	t.Helper()
	return makeWorld(t, false, netHost{}, extra...)
}

func makeWorld(t *testing.T, nobody bool, host netHost, extra ...string) *world {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	// Sockets have short names: not in the test's own folder, whose name is long.
	dir, err := os.MkdirTemp("", "tess-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, bin: bin, dir: dir, extra: extra, keys: map[string]ssh.Signer{}, nobody: nobody && os.Geteuid() == 0, host: host}
	if w.nobody {
		if err := os.Chown(dir, nobodyID, nobodyID); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() && w.orch != nil {
			t.Logf("orchestratord said:\n%s", w.orch.log)
		}
		_ = os.RemoveAll(dir)
	})
	w.tool("vendor", "root", "--dir", w.path("maker"))
	w.tool("hsmd", "init", "--state", w.path("hsm"))
	w.tool("vendor", "warrant", "--dir", w.path("maker"), "--request", w.path("hsm/identity-request"), "--out", w.path("warrant"))
	w.tool("hsmd", "warrant", "--state", w.path("hsm"), w.path("warrant"))
	w.startHSM()
	w.startOrchestrator()
	w.enrol()
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) tool(name string, args ...string) string {
	w.t.Helper()
	var out []byte
	var err error
	w.host.do(w.t, func() { out, err = w.command(name, args...).CombinedOutput() })
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

const nobodyID = 65534

func (w *world) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(w.bin, name), args...)
	cmd.Dir = w.dir
	if w.nobody {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
	}
	return cmd
}

func (w *world) daemon(name string, args ...string) (*process, *bufio.Reader) {
	w.t.Helper()
	p := &process{cmd: w.command(name, args...), log: &syncBuffer{}, done: make(chan struct{})}
	p.cmd.Stderr = p.log
	p.cmd.WaitDelay = time.Second // what it leaves behind has its standard error
	pr, pw, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	p.cmd.Stdout = pw
	w.host.do(w.t, func() { err = p.cmd.Start() })
	if err != nil {
		w.t.Fatal(err)
	}
	pw.Close()
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	// The one that was started last ends first, in good order.
	w.t.Cleanup(func() { p.end(syscall.SIGTERM); pr.Close() })
	return p, bufio.NewReader(pr)
}

// end signals and waits.
func (p *process) end(sig syscall.Signal) int {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

func (w *world) startHSM() {
	w.t.Helper()
	w.hsmd, _ = w.daemon("hsmd", "run", "--state", w.path("hsm"), "--socket", w.path("hsm.sock"))
	eventually(w.t, "hsmd answers", func() bool {
		c, err := hsmapi.Dial(w.t.Context(), w.path("hsm.sock"))
		if err != nil {
			return false
		}
		defer c.Close()
		id, err := c.Identity(w.t.Context())
		w.esn = id.ESN
		return err == nil
	})
}

// floor is what VCMs must reach in these tests.
func floor() string { return "rootless" }

func (w *world) startOrchestrator() {
	w.t.Helper()
	args := append([]string{"run", "--state", w.path("o"), "--hsm-socket", w.path("hsm.sock"), "--isolation-floor", floor(), "--orphan-grace", "20s"}, w.extra...)
	p, out := w.daemon("orchestratord", args...)
	w.orch = p
	line := make(chan string, 1)
	go func() { s, _ := out.ReadString('\n'); line <- s; _, _ = io.Copy(io.Discard, out) }()
	select {
	case s := <-line:
		if !strings.HasPrefix(s, "orchestratord: ready esn="+w.esn) {
			w.t.Fatalf("it said %q\n%s", s, p.log)
		}
		_, after, _ := strings.Cut(s, " metrics=")
		w.metrics, _, _ = strings.Cut(after, " ")
	case <-time.After(patience):
		w.t.Fatalf("not ready\n%s", p.log)
	}
}

func (w *world) unit() unitfile.Unit {
	w.t.Helper()
	u, err := unitfile.Read(w.path("o/" + unitfile.Name))
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *world) dial(service string, key ssh.Signer) (*sshrpc.Client, error) {
	u := w.unit()
	address, err := u.Service(service)
	if err != nil {
		return nil, err
	}
	unitKey, err := u.Key()
	if err != nil {
		return nil, err
	}
	var c *sshrpc.Client
	w.host.do(w.t, func() {
		c, err = sshrpc.Dial(w.t.Context(), sshrpc.ClientConfig{
			Service: service, Address: address, Signer: key, UnitKey: unitKey, Principal: hsmapi.Principal(u.ESN, "", service), Timeout: patience,
		})
	})
	return c, err
}

func (w *world) client(service string) *sshrpc.Client {
	w.t.Helper()
	c, err := w.dial(service, w.keys[service])
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

// enrol replaces the factory key, as hsmadmin enroll does.
func (w *world) enrol() {
	w.t.Helper()
	p, err := os.ReadFile(w.unit().FactoryKey)
	if err != nil {
		w.t.Fatal(err)
	}
	factory, err := ssh.ParsePrivateKey(p)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.dial(platform.ServiceSSHAdmin, factory)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	var keys []*sshadmin.ClientKey
	for _, s := range platform.Services() {
		w.keys[s] = sshrpctest.Key(w.t)
		keys = append(keys, &sshadmin.ClientKey{ServiceName: s, ClientKey: request.KeyText(w.keys[s].PublicKey())})
	}
	if _, err := sshadmin.NewSshAdminClient(c.Thrift()).InstallKeys(w.t.Context(), keys); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) orchestrator() *orchestrator.OrchestratorClient {
	w.t.Helper()
	return orchestrator.NewOrchestratorClient(w.client(platform.ServiceOrchestrator).Thrift())
}

func (w *world) setup() *setup.SetupClient {
	w.t.Helper()
	return setup.NewSetupClient(w.client(platform.ServiceSetup).Thrift())
}

func (w *world) monitor() *monitor.MonitorClient {
	w.t.Helper()
	return monitor.NewMonitorClient(w.client(platform.ServiceMonitor).Thrift())
}

// licence applies one of the given type.
func (w *world) licence(kind, value string) {
	w.t.Helper()
	out := w.path(kind + "-" + value)
	w.tool("vendor", "licence", "--dir", w.path("maker"), "--esn", w.esn, "--type", kind, "--value", value, "--out", out)
	file, err := os.ReadFile(out)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.setup().ApplyLicence(w.t.Context(), file); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) root() ssh.PublicKey {
	w.t.Helper()
	p, err := os.ReadFile(w.path("maker/root.pub"))
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := warrant.ParseKey(strings.TrimSpace(string(p)))
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

// tenant signs requests.
type tenant struct {
	key ssh.Signer
	ssh ssh.Signer
}

func newTenant(t *testing.T) tenant {
	return tenant{key: sshrpctest.Key(t), ssh: sshrpctest.Key(t)}
}

func (n tenant) sign(t *testing.T, r request.Request) []byte {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	r.ID, r.Created = uuid.NewString(), now
	if r.NotBefore.IsZero() {
		r.NotBefore = now.Add(-time.Minute)
	}
	if r.Expires.IsZero() {
		r.Expires = now.Add(time.Hour)
	}
	if r.Kind == request.Create {
		r.SSHAdminKey, r.RequestKey = n.ssh.PublicKey(), n.key.PublicKey()
	}
	file, err := r.Sign(n.key)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func (w *world) create(o *orchestrator.OrchestratorClient, n tenant, name string) *orchestrator.Created {
	w.t.Helper()
	c, err := o.Create(w.t.Context(), n.sign(w.t, request.Request{Kind: request.Create}), &orchestrator.CreateChoices{Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) start(o *orchestrator.OrchestratorClient, id string) *orchestrator.Vcm {
	w.t.Helper()
	v, err := o.Start(w.t.Context(), id, nil, 60)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !ok() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("waited for nothing: %s", what)
		}
	}
}

// processOf is the VCM's process.
func processOf(t *testing.T, uuid string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		p, err := os.ReadFile(name)
		if err != nil || strings.TrimRight(string(p), "\x00") != "vcmd "+uuid {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(name, "/proc/%d/", &pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatalf("VCM %s has no process", uuid)
	return 0
}
