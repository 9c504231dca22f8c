package prismtoken_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/servercert"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

const (
	moduleID     = "89051616"
	moduleBucket = "module"
	auditBucket  = "audit"
	quota        = 64 << 20
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// counter is a device's monotonic counter.
type counter struct {
	mu sync.Mutex
	v  uint64
}

func (c *counter) Raise(_ context.Context, v uint64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.v = max(c.v, v)
	return c.v, nil
}

// rig is a whole token service on a real store and module.
type rig struct {
	t        testing.TB
	dir      string
	key      []byte
	counter  *counter
	clock    *clock.Fake
	limits   prismtoken.Limits
	testMode bool
	quota    int64
	speed    prismtoken.Speed
	host     clock.Clock       // the host's; nil: the module's
	change   func(*tsm.Config) // of the module
	dialled  []net.Conn

	store    *store.Store
	module   *tsm.Module
	accounts *accounts.Accounts
	keys     *keystore.Keystore
	pos      *pos.Service
	cert     *servercert.Certificate
	server   *prismtoken.Server
	address  string
	stop     func()
}

var admin = accounts.Actor{Realm: "ssh", Name: "test"}

type vault struct{ s *store.Store }

func (v vault) View(ctx context.Context, fn func(tsm.Tx) error) error {
	return v.s.View(ctx, func(tx *store.Tx) error { return fn(tx.Bucket(moduleBucket)) })
}

func (v vault) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	return v.s.Update(ctx, func(tx *store.Tx) error { return fn(tx.Bucket(moduleBucket)) })
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newRig(t testing.TB, change ...func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), key: make([]byte, 32), counter: new(counter), clock: clock.NewFake(epoch), quota: quota}
	rand.Read(r.key)
	for _, c := range change {
		c(r)
	}
	r.open()
	t.Cleanup(func() { r.stop() })
	return r
}

// open starts everything on what is in the rig's folder.
func (r *rig) open() {
	t, ctx := r.t, context.Background()
	t.Helper()
	dir := must(os.Open(r.dir))(t)
	t.Cleanup(func() { dir.Close() }) // after the store
	r.store = must(store.Open(ctx, store.Config{
		Dir: dir, Key: r.key, Counter: r.counter, Quota: r.quota,
		Cold: []store.Keys{ // as vcmd has them
			{Bucket: auditBucket, Prefix: auditlog.EntryPrefix}, {Bucket: pos.BucketResults, Prefix: pos.ResultPrefix},
			{Bucket: moduleBucket, Prefix: "reg/"}, {Bucket: moduleBucket, Prefix: "slot/"}, {Bucket: moduleBucket, Prefix: "id"},
		},
		Log: slog.New(slog.DiscardHandler),
	}))(t)
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	log := must(auditlog.New(auditlog.Config{Origin: "test", Key: signer}))(t)
	audit := func(tx *store.Tx, e auditlog.Entry) error {
		_, err := log.Append(tx.Bucket(auditBucket), e)
		return err
	}
	module := tsm.Config{
		Vault: vault{r.store}, ModuleID: moduleID, Clock: r.clock, Created: epoch, TestMode: r.testMode, Window: 7 * 24 * time.Hour,
		Audit: func(tx tsm.Tx, e tsm.Event) error { return audit(tx.(*store.Bucket).Tx(), auditlog.Entry(e)) },
	}
	if r.change != nil {
		r.change(&module)
	}
	r.module = must(tsm.Open(ctx, module))(t)
	r.accounts = must(accounts.New(ctx, accounts.Config{Store: r.store, Audit: audit, Clock: r.clock}))(t)
	prefs := r.accounts.Preferences()
	r.keys = must(keystore.New(ctx, keystore.Config{
		Store: r.store, Module: r.module, ModuleBucket: moduleBucket, Preferences: prefs, Audit: audit, Clock: r.clock,
	}))(t)
	r.pos = must(pos.New(pos.Config{
		Store: r.store, Module: r.module, ModuleBucket: moduleBucket, Keys: r.keys, Preferences: prefs, Clock: r.clock,
		FirmwareID: "STS64V10", TestMode: r.testMode, Audit: audit,
	}))(t)
	r.cert = must(servercert.Open(ctx, servercert.Config{
		Store: r.store, Audit: audit, Preferences: prefs, Clock: clock.System(), Names: []string{"127.0.0.1"},
	}))(t)
	if r.host == nil {
		r.host = r.clock
	}
	board := dashboard.New(dashboard.Config{
		Store: r.store, Module: r.module, ModuleBucket: moduleBucket, Keys: r.keys, Accounts: r.accounts,
		CertificateExpires: r.cert.Expires, Host: r.host, Quota: r.quota, Address: "127.0.0.1:9443", SerialNumber: "0000-0000-0001", UID: "uid", TPS: 25,
		Operations: func(context.Context) (uint64, error) { return 8643, nil },
	})
	r.server = must(prismtoken.NewServer(prismtoken.Config{
		Accounts: r.accounts, POS: r.pos, Dashboard: board, Module: r.module, Certificate: r.cert.Get, Clock: r.clock, Limits: r.limits, Speed: r.speed,
	}))(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	r.address = l.Addr().String()
	serving, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.server.Serve(serving, l) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := r.store.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
}

// reopen is a restart.
func (r *rig) reopen() {
	r.t.Helper()
	r.stop()
	r.open()
	r.t.Cleanup(r.stop)
}

// load makes vending keys at a test KMC and brings them into the module the
// way an operator does.
func (r *rig) load(groups ...kmc.Group) *kmc.KMC {
	r.t.Helper()
	k := r.begin(groups...)
	must(r.keys.EndSession(context.Background(), admin, "TEST-KMC"))(r.t)
	return k
}

// begin is load without the end of the key agreement's session.
func (r *rig) begin(groups ...kmc.Group) *kmc.KMC {
	t, ctx := r.t, context.Background()
	t.Helper()
	must(r.accounts.Preferences().Set(ctx, admin, ^accounts.Permission(0), accounts.PrefAllowUnapprovedKMC, "True"))(t)
	k := must(kmc.Init(t.TempDir(), "TEST-KMC", epoch.AddDate(-1, 0, 0), epoch.AddDate(5, 0, 0), rand.Reader))(t)
	must(k.AddModule(r.module.PublicKeyRecord()))(t)
	for _, g := range groups {
		must(k.AddGroup(g))(t)
	}
	must(k.AuthoriseAll(moduleID))(t)
	key := must(k.PublicKey())(t)
	must(r.keys.UploadPublicKey(ctx, admin, key.Text()))(t)
	request := must(r.keys.GenerateRequest(ctx, admin, "TEST-KMC"))(t)
	answer := must(k.Answer(request, r.clock.Now()))(t)
	must(r.keys.UploadKLF(ctx, admin, answer.Text))(t)
	for {
		p := must(r.keys.LoadAll(ctx, admin, "TEST-KMC", 2))(t)
		if p.Failure != "" {
			t.Fatal(p.Failure)
		}
		if p.Remaining == 0 {
			break
		}
	}
	return k
}

// group is a supply group's key as the tests use it.
func group(sgc, krn int, change ...func(*kmc.Group)) kmc.Group {
	g := kmc.Group{
		SGC: sgc, KRN: krn, KTC: "VUDK", BDT: 2014, DKG: 4, KEN: 255, SBM: 0xFFFF, ULM: tsm.Unlimited, CLM: tsm.Unlimited,
		ACT: epoch.AddDate(-1, 0, 0), Refresh: 90, SGN: "TEST",
	}
	for _, c := range change {
		c(&g)
	}
	return g
}

const password = "Passw0rd"

// user creates a user of the token service.
func (r *rig) user(name string, roles ...string) {
	r.t.Helper()
	must(r.accounts.Create(context.Background(), admin, accounts.NewUser{Username: name, Roles: append(roles, accounts.RoleAPI), Password: password}))(r.t)
}

// dial connects with the certificate pinned, as a client should.
func (r *rig) dial() *tls.Conn {
	r.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(r.cert.PEM())) {
		r.t.Fatal("the certificate is not PEM")
	}
	c := must(tls.Dial("tcp", r.address, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}))(r.t)
	r.t.Cleanup(func() { c.Close() })
	r.dialled = append(r.dialled, c)
	return c
}

// hangUp closes every connection that dial made.
func (r *rig) hangUp() {
	for _, c := range r.dialled {
		c.Close()
	}
}

// client is a generated client on a connection of its own.
func (r *rig) client() *prismtoken1.TokenApiClient {
	r.t.Helper()
	conf := &thrift.TConfiguration{}
	trans := thrift.NewTFramedTransportConf(thrift.NewTBufferedTransport(thrift.NewTSocketFromConnConf(r.dial(), conf), 4096), conf)
	return prismtoken1.NewTokenApiClientFactory(trans, thrift.NewTBinaryProtocolFactoryConf(conf))
}

// signIn returns an access token.
func (r *rig) signIn(c *prismtoken1.TokenApiClient, name string) string {
	r.t.Helper()
	res, err := c.SignInWithPassword(context.Background(), "signin-1", "local", name, password, prismtoken1.NewSessionOptions())
	if err != nil {
		r.t.Fatal(err)
	}
	return res.AccessToken
}
