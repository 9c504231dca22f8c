package sshrpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
)

const (
	service   = "sshadmin"
	principal = "aaaa-bbbb-cccc/sshadmin"
)

// handler answers what the test wants.
type handler struct {
	show    func(ctx context.Context) ([]*sshadmin.ServiceKey, error)
	install func(ctx context.Context, keys []*sshadmin.ClientKey) ([]*sshadmin.ServiceKey, error)
}

func (h handler) ShowKeys(ctx context.Context) ([]*sshadmin.ServiceKey, error) { return h.show(ctx) }
func (h handler) InstallKeys(ctx context.Context, keys []*sshadmin.ClientKey) ([]*sshadmin.ServiceKey, error) {
	return h.install(ctx, keys)
}

func oneKey(context.Context) ([]*sshadmin.ServiceKey, error) {
	return []*sshadmin.ServiceKey{{ServiceName: "sshadmin", Address: "127.0.0.1:1"}}, nil
}

// world is a unit, its service and the one client that may use it.
type world struct {
	unit, client ssh.Signer
	authorised   sshrpctest.Authorised
	log          syncBuffer
	address      string
}

func newWorld(t *testing.T, h handler, change func(*sshrpc.ServerConfig)) *world {
	t.Helper()
	w := &world{unit: sshrpctest.Key(t), client: sshrpctest.Key(t)}
	w.authorised.Set(w.client.PublicKey())
	cfg := sshrpc.ServerConfig{
		Service: service, HostKey: sshrpctest.HostKey(t, w.unit, principal), Authorised: w.authorised.Get,
		Processor: sshrpctest.Processor(sshadmin.NewSshAdminProcessor(h)),
		Log:       slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	w.address = sshrpctest.Serve(t, cfg)
	return w
}

func (w *world) config() sshrpc.ClientConfig {
	return sshrpc.ClientConfig{
		Service: service, Address: w.address, Signer: w.client,
		UnitKey: w.unit.PublicKey(), Principal: principal, Timeout: 10 * time.Second,
	}
}

func (w *world) dial(t *testing.T) (*sshrpc.Client, *sshadmin.SshAdminClient) {
	t.Helper()
	c, err := sshrpc.Dial(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, sshadmin.NewSshAdminClient(c.Thrift())
}

func TestCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, nil)
	_, client := w.dial(t)
	for range 3 {
		keys, err := client.ShowKeys(t.Context())
		if err != nil || len(keys) != 1 || keys[0].ServiceName != "sshadmin" {
			t.Fatalf("ShowKeys = %v, %v", keys, err)
		}
	}
}

func TestEveryKindCrossesTheWire(t *testing.T) {
	t.Parallel()
	var kind errkind.Kind
	var viaHelper bool
	w := newWorld(t, handler{show: func(context.Context) ([]*sshadmin.ServiceKey, error) {
		err := errkind.Errorf(kind, "secret: %w", io.ErrUnexpectedEOF)
		if viaHelper {
			err = sshrpc.Failure(err)
		}
		return nil, err
	}}, nil)
	_, client := w.dial(t)
	for _, kind = range errkind.All() {
		for _, viaHelper = range []bool{false, true} {
			_, err := client.ShowKeys(t.Context())
			if !errkind.Is(err, kind) {
				t.Errorf("sent %v, received %v (%v)", kind, errkind.Of(err), err)
			}
			leaked := strings.Contains(err.Error(), "secret")
			if leaked == (kind == errkind.Internal) {
				t.Errorf("%v: the client reads %q", kind, err)
			}
		}
	}
	if !strings.Contains(w.log.String(), "secret: unexpected EOF") {
		t.Error("the log does not say what failed inside")
	}
	if sshrpc.Failure(nil) != nil || sshrpc.FromFailure(nil) != nil {
		t.Error("no error became one")
	}
}

func TestPanicIsContained(t *testing.T) {
	t.Parallel()
	first := true
	w := newWorld(t, handler{show: func(ctx context.Context) ([]*sshadmin.ServiceKey, error) {
		if first {
			first = false
			panic("secret")
		}
		return oneKey(ctx)
	}}, nil)
	_, client := w.dial(t)
	_, err := client.ShowKeys(t.Context())
	if !errkind.Is(err, errkind.Internal) || strings.Contains(err.Error(), "secret") {
		t.Errorf("after a panic the client reads %v", err)
	}
	if _, err := client.ShowKeys(t.Context()); err != nil {
		t.Errorf("the session did not survive: %v", err)
	}
	if !strings.Contains(w.log.String(), "panic: secret") {
		t.Error("the log does not tell of the panic")
	}
}

func TestAuthorisationFollowsTheKeyAtSessionStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, nil)
	_, before := w.dial(t)
	if _, err := before.ShowKeys(t.Context()); err != nil { // now it has started
		t.Fatal(err)
	}
	next := sshrpctest.Key(t)
	w.authorised.Set(next.PublicKey())
	if _, err := before.ShowKeys(t.Context()); err != nil {
		t.Errorf("a session that had started was ended: %v", err)
	}
	if _, err := sshrpc.Dial(t.Context(), w.config()); !errkind.Is(err, errkind.Unauthorised) {
		t.Errorf("the old key: %v", err)
	}
	w.client = next
	w.dial(t)
	w.authorised.Set(nil)
	if _, err := sshrpc.Dial(t.Context(), w.config()); !errkind.Is(err, errkind.Unauthorised) {
		t.Errorf("no key installed: %v", err)
	}
}

// A connection that authenticated while its key was valid opens no session later.
func TestASessionOfAnOldConnectionIsAuthorisedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, nil)
	conn, err := ssh.Dial("tcp", w.address, &ssh.ClientConfig{
		User: "x", Auth: []ssh.AuthMethod{ssh.PublicKeys(w.client)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w.authorised.Set(sshrpctest.Key(t).PublicKey())
	session, err := conn.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := session.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestSubsystem(service); err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(stderr)
	if !strings.Contains(string(text), "may not use this service") {
		t.Errorf("stderr: %q", text)
	}
}

func TestClientRecognisesTheHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, nil)
	plain := newWorld(t, handler{show: oneKey}, func(cfg *sshrpc.ServerConfig) { cfg.HostKey = sshrpctest.Key(t) })
	for what, change := range map[string]func(*sshrpc.ClientConfig){
		"another unit":      func(c *sshrpc.ClientConfig) { c.UnitKey = sshrpctest.Key(t).PublicKey() },
		"another principal": func(c *sshrpc.ClientConfig) { c.Principal = "AAAA-BBBB-CCCC/monitor" },
		"no certificate":    func(c *sshrpc.ClientConfig) { *c = plain.config() },
	} {
		cfg := w.config()
		change(&cfg)
		if _, err := sshrpc.Dial(t.Context(), cfg); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %v (%v)", what, err, errkind.Of(err))
		}
	}
}

func TestHostCertificates(t *testing.T) {
	t.Parallel()
	unit, now := sshrpctest.Key(t), time.Unix(1_800_000_000, 0)
	certificate := func(change func(*ssh.Certificate)) ssh.PublicKey {
		cert := &ssh.Certificate{Key: sshrpctest.Key(t).PublicKey(), CertType: ssh.HostCert,
			ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity}
		change(cert)
		if err := cert.SignCert(zero{}, unit); err != nil {
			t.Fatal(err)
		}
		return cert
	}
	if err := sshrpc.CheckHostCertificate(certificate(func(*ssh.Certificate) {}), unit.PublicKey(), principal, now); err != nil {
		t.Errorf("a good certificate: %v", err)
	}
	for what, key := range map[string]ssh.PublicKey{
		"plain key":        unit.PublicKey(),
		"user certificate": certificate(func(c *ssh.Certificate) { c.CertType = ssh.UserCert }),
		"no principal":     certificate(func(c *ssh.Certificate) { c.ValidPrincipals = nil }),
		"expired":          certificate(func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Unix()) - 1 }),
		"not yet valid":    certificate(func(c *ssh.Certificate) { c.ValidAfter = uint64(now.Unix()) + 1 }),
		"critical option":  certificate(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": "y"} }),
		"forged": func() ssh.PublicKey {
			c := certificate(func(*ssh.Certificate) {}).(*ssh.Certificate)
			c.Serial++
			return c
		}(),
	} {
		if err := sshrpc.CheckHostCertificate(key, unit.PublicKey(), principal, now); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { return len(p), nil }

func TestCallObeysItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: func(ctx context.Context) ([]*sshadmin.ServiceKey, error) {
		<-ctx.Done() // ends with the connection
		return nil, ctx.Err()
	}}, nil)
	_, client := w.dial(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.ShowKeys(ctx); !errkind.Is(err, errkind.Unavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ShowKeys = %v", err)
	}
	if _, err := client.ShowKeys(t.Context()); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("a late answer could be taken for this one's: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := newWorld(t, handler{show: oneKey}, nil)
	for what, tc := range map[string]struct {
		change func(*sshrpc.ClientConfig)
		want   errkind.Kind
	}{
		"nobody listens": {func(c *sshrpc.ClientConfig) { c.Address = "127.0.0.1:1" }, errkind.Unavailable},
		"silent host":    {func(c *sshrpc.ClientConfig) { c.Address, c.Timeout = silent.Addr().String(), 100*time.Millisecond }, errkind.Unavailable},
		"other service":  {func(c *sshrpc.ClientConfig) { c.Service = "monitor" }, errkind.Refused},
		"no unit key":    {func(c *sshrpc.ClientConfig) { c.UnitKey = nil }, errkind.Internal},
	} {
		cfg := w.config()
		tc.change(&cfg)
		if _, err := sshrpc.Dial(t.Context(), cfg); !errkind.Is(err, tc.want) {
			t.Errorf("%s: %v (%v), want %v", what, err, errkind.Of(err), tc.want)
		}
	}
}

// syncBuffer is a log that tests read while the service writes.
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
