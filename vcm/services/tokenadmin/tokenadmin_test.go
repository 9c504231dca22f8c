package tokenadmin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
	"github.com/tesserae-hsm/tesserae/vcm/maintenance"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/servercert"
	"github.com/tesserae-hsm/tesserae/vcm/services/tokenadmin"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

const (
	moduleID = "89051616"
	bucket   = "module"
)

var (
	epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	ctx   = context.Background()
)

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

type vault struct{ s *store.Store }

func (v vault) View(ctx context.Context, fn func(tsm.Tx) error) error {
	return v.s.View(ctx, func(tx *store.Tx) error { return fn(tx.Bucket(bucket)) })
}

func (v vault) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	return v.s.Update(ctx, func(tx *store.Tx) error { return fn(tx.Bucket(bucket)) })
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

// rig is the service as one session sees it.
type rig struct {
	prismadmin.PrismAdmin
	t       *testing.T
	service *tokenadmin.Service
	cert    *servercert.Certificate
	reopen  func() *servercert.Certificate
	module  *tsm.Module
	clock   *clock.Fake
	entries []auditlog.Entry
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := must(os.Open(t.TempDir()))(t)
	t.Cleanup(func() { dir.Close() }) // after the store
	key := make([]byte, 32)
	rand.Read(key)
	s := must(store.Open(ctx, store.Config{Dir: dir, Key: key, Counter: new(counter), Quota: 64 << 20, Log: slog.New(slog.DiscardHandler)}))(t)
	t.Cleanup(func() { s.Close() })
	r := &rig{t: t, clock: clock.NewFake(epoch)}
	audit := func(_ *store.Tx, e auditlog.Entry) error {
		r.entries = append(r.entries, e)
		return nil
	}
	r.module = must(tsm.Open(ctx, tsm.Config{Vault: vault{s}, ModuleID: moduleID, Clock: r.clock, Created: epoch}))(t)
	a := must(accounts.New(ctx, accounts.Config{Store: s, Audit: audit, Clock: r.clock}))(t)
	keys := must(keystore.New(ctx, keystore.Config{
		Store: s, Module: r.module, ModuleBucket: bucket, Preferences: a.Preferences(), Audit: audit, Clock: r.clock,
	}))(t)
	service := must(pos.New(pos.Config{
		Store: s, Module: r.module, ModuleBucket: bucket, Keys: keys, Preferences: a.Preferences(), Clock: r.clock, FirmwareID: "STS64V10", Audit: audit,
	}))(t)
	r.reopen = func() *servercert.Certificate {
		return must(servercert.Open(ctx, servercert.Config{
			Store: s, Audit: audit, Preferences: a.Preferences(), Clock: r.clock, Names: []string{"127.77.0.2", "tokens.example"},
		}))(t)
	}
	r.cert = r.reopen()
	board := dashboard.New(dashboard.Config{
		Store: s, Module: r.module, ModuleBucket: bucket, Keys: keys, Accounts: a, CertificateExpires: r.cert.Expires, Host: r.clock,
	})
	r.service = tokenadmin.New(tokenadmin.Config{
		Accounts: a, Keys: keys, POS: service, Module: r.module, Dashboard: board, Certificate: r.cert, Address: "127.77.0.2:9443",
		Maintenance: must(maintenance.Open(ctx, maintenance.Config{Store: s, Audit: audit, Clock: r.clock}))(t),
	})
	r.PrismAdmin = r.service.Handler(accounts.Actor{Realm: "ssh", Name: "SHA256-abc"})
	return r
}

// load brings keys into the module over the service alone.
func (r *rig) load(groups ...kmc.Group) {
	t := r.t
	t.Helper()
	must(r.PrefSet(ctx, accounts.PrefAllowUnapprovedKMC, "true"))(t)
	k := must(kmc.Init(t.TempDir(), "TEST-KMC", epoch.AddDate(-1, 0, 0), epoch.AddDate(5, 0, 0), rand.Reader))(t)
	must(k.AddModule(must(r.SmPublicKey(ctx))(t)))(t)
	for _, g := range groups {
		must(k.AddGroup(g))(t)
	}
	must(k.AuthoriseAll(moduleID))(t)
	must(r.KmcUploadKey(ctx, must(k.PublicKey())(t).Text()))(t)
	request := must(r.KmcGenerateRequest(ctx, "TEST-KMC"))(t)
	if again := must(r.KmcFetchRequest(ctx, "TEST-KMC"))(t); again != request {
		t.Errorf("fetched %q", again)
	}
	must(r.KmcUploadKlf(ctx, must(k.Answer(request, r.clock.Now()))(t).Text))(t)
	if p := must(r.KmcLoad(ctx, "TEST-KMC", 100))(t); p.Remaining != 0 || p.Failure != "" {
		t.Fatalf("%+v", p)
	}
}

func group(sgc int) kmc.Group {
	return kmc.Group{
		SGC: sgc, KRN: 1, KTC: "VUDK", BDT: 2014, DKG: 4, KEN: 255, SBM: 0xFFFF, ULM: 1000, CLM: tsm.Unlimited,
		ACT: epoch.AddDate(-1, 0, 0), Refresh: 90, SGN: "TEST",
	}
}

func alerts(st *prismadmin.Status) []string {
	var codes []string
	for _, a := range st.Alerts {
		code, _, _ := strings.Cut(a, " ")
		codes = append(codes, code)
	}
	slices.Sort(codes)
	return codes
}

// TestAdministration goes through the service as its tenant would.
func TestAdministration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if got := alerts(must(r.Status(ctx))(t)); !slices.Equal(got, []string{dashboard.NoVendingKeys, dashboard.FirstPasswordUnset}) {
		t.Errorf("a new VCM's notices: %v", got)
	}
	if err := r.UserSetPassword(ctx, "admin", "Passw0rd"); err != nil {
		t.Fatal(err)
	}
	u := must(r.UserCreate(ctx, "api", []string{"ptoken-api", "ptoken-issue-any"}, "Passw0rd", 0))(t)
	if u.AccountExpires != epoch.AddDate(1, 0, 0).Unix() || !u.PasswordSet || u.Disabled || u.LastSignIn != 0 {
		t.Errorf("%+v", u)
	}
	yes, never := true, int64(0)
	if u := must(r.UserChange(ctx, "api", &prismadmin.UserChange{Disabled: &yes, AccountExpires: &never}))(t); !u.Disabled || u.AccountExpires != 0 {
		t.Errorf("%+v", u)
	}
	if got := must(r.UserList(ctx))(t); len(got) != 2 || got[1].Username != "api" {
		t.Errorf("%+v", got)
	}
	if _, err := r.UserShow(ctx, "nobody"); !errkind.Is(err, errkind.NotFound) {
		t.Error(err)
	}
	if err := r.UserDelete(ctx, "api"); err != nil {
		t.Error(err)
	}
	if got := must(r.RoleList(ctx))(t); len(got) != 13 {
		t.Errorf("%d roles", len(got))
	}
	if got := must(r.PrefList(ctx, "ptoken.session"))(t); len(got) != 1 || got[0].Value != "300" || got[0].Type != "int" || got[0].Range != "10..2592000" {
		t.Errorf("%+v", got)
	}
	for _, e := range r.entries {
		if strings.HasPrefix(e.Kind, "user.") && e.Actor != "ssh:SHA256-abc" && e.Actor != "system:vcm" {
			t.Errorf("audited as %q", e.Actor)
		}
	}

	r.load(group(123456), group(654321))
	if got := alerts(must(r.SmStatus(ctx))(t)); !slices.Equal(got, []string{dashboard.SlotLoading}) {
		t.Errorf("notices while loading: %v", got)
	}
	if s := must(r.KmcEndSession(ctx, "TEST-KMC"))(t); s.State != "ACTIVE" || s.RegistersLoaded != 2 || s.KeysInKlf != 2 || s.Kpn != 1 {
		t.Errorf("%+v", s)
	}
	if got := must(r.KmcList(ctx))(t); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	if got := must(r.VkList(ctx, false))(t); len(got) != 2 || got[0].Sgc != 123456 || got[0].Attributes["KTC"] != "VUDK" {
		t.Errorf("%+v", got)
	}
	if _, err := r.LicenseLoad(ctx, "no licence"); err == nil {
		t.Error("any text is a licence")
	}

	meter := prismadmin.NewMeter()
	meter.Drn, meter.Ea, meter.Tct, meter.Sgc, meter.Krn, meter.Ti, meter.Ken = "00000000000", 11, 2, 123456, 1, 1, 255
	ask := &prismadmin.TokenRequest{MessageId: "m-1", Meter: meter, Amount: 995}
	credit := must(r.TokenCredit(ctx, ask))(t)
	if len(credit) != 1 || credit[0].ScaledAmount != "99.5" {
		t.Fatalf("%+v", credit)
	}
	if got := must(r.TokenFetch(ctx, "m-1"))(t); len(got) != 1 || !got[0].Equals(credit[0]) {
		t.Errorf("%+v", got)
	}
	other := r.service.Handler(accounts.Actor{Realm: "ssh", Name: "SHA256-other"})
	if _, err := other.TokenFetch(ctx, "m-1"); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("another key's holder: %v", err)
	}
	if v := must(r.TokenVerify(ctx, meter, credit[0].TokenDec))(t); v.Result_ != "EVerify.Ok" || !v.Token.Equals(credit[0]) {
		t.Errorf("%+v", v)
	}
	if v := must(r.TokenVerify(ctx, meter, "00000000000134220736"))(t); v.Result_ != "EVerify.Ok" || v.MeterTest == nil || v.MeterTest.Control != 0 {
		t.Errorf("%+v", v)
	}
	if m := must(r.TokenMeterTest(ctx, 0, 0, 0))(t); m.TokenDec != "00000000000134220736" || m.TokenHex != "00000000008000BC0" || m.Description != "InitMeterTest" {
		t.Errorf("%+v", m)
	}
	if got := must(r.TokenManagement(ctx, &prismadmin.TokenRequest{MessageId: "m-2", Meter: meter, Subclass: 1, Amount: 65535}))(t); got[0].Description != "ClearCredit" {
		t.Errorf("%+v", got)
	}
	if got := must(r.TokenKeyChange(ctx, "m-3", meter, &prismadmin.Amendment{ToSgc: 654321, ToKrn: 1, ToTi: 1}))(t); len(got) != 4 || got[0].NewConfig_ == nil {
		t.Errorf("%+v", got)
	}
	ask.MessageId = "not an ident"
	if _, err := r.TokenCredit(ctx, ask); !errkind.Is(err, errkind.Invalid) {
		t.Error(err)
	}
	ask.MessageId, ask.Amount = "m-4", 6
	if _, err := r.TokenCredit(ctx, ask); !errkind.Is(err, errkind.Limit) {
		t.Errorf("beyond the unit limit: %v", err)
	}
	if got := alerts(must(r.Status(ctx))(t)); !slices.Contains(got, dashboard.KeyLimitLow) {
		t.Errorf("notices with a limit nearly used: %v", got)
	}
	r.clock.Advance(70 * 24 * time.Hour)
	if got := alerts(must(r.Status(ctx))(t)); !slices.Contains(got, dashboard.KeyRefresh) {
		t.Errorf("notices before the IUT: %v", got)
	}
	if err := r.VkDelete(ctx, 123456, 1); err != nil {
		t.Error(err)
	}
	if n := must(r.KmcDeleteSlot(ctx, "TEST-KMC"))(t); n != 1 {
		t.Errorf("%d registers erased", n)
	}
}

// TestCertificate: self-signed from the start, kept over a restart, replaced
// by an imported chain only if that hangs together.
func TestCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := must(r.TokenEndpoint(ctx))(t)
	leaf := parse(t, first.CertificatePem)
	if leaf.VerifyHostname("127.77.0.2") != nil || leaf.VerifyHostname("tokens.example") != nil || first.Address != "127.77.0.2:9443" || first.NotAfter != leaf.NotAfter.Unix() {
		t.Errorf("%+v", first)
	}
	if again := r.reopen(); again.PEM() != first.CertificatePem {
		t.Error("another certificate after a restart")
	}
	for _, kind := range []string{"EC-P384", "RSA-2048", "EC-P256"} {
		must(r.PrefSet(ctx, accounts.PrefTLSKey, kind))(t)
		if next := must(r.TlsGenerate(ctx))(t); next.Sha256 == first.Sha256 || must(r.cert.Get(nil))(t).Leaf.PublicKey == nil {
			t.Errorf("%s: %+v", kind, next)
		}
	}
	root, rootKey := issue(t, "root", nil, nil)
	server, serverKey := issue(t, "server", root, rootKey)
	_, otherKey := issue(t, "other", root, rootKey)
	chain := certPEM(server) + certPEM(root)
	before := must(r.TokenEndpoint(ctx))(t)
	for what, c := range map[string]struct{ chain, key, text string }{
		"no chain":      {"", keyPEM(t, serverKey), "no certificate"},
		"no key":        {chain, "", "no key"},
		"another key":   {chain, keyPEM(t, otherKey), "does not belong"},
		"wrong order":   {certPEM(root) + certPEM(server), keyPEM(t, rootKey), "not signed by the one after it"},
		"key in chain":  {chain + keyPEM(t, serverKey), keyPEM(t, serverKey), "expected certificates only"},
		"damaged key":   {chain, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"},
		"damaged chain": {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", keyPEM(t, serverKey), "certificate 1"},
	} {
		if _, err := r.TlsImport(ctx, c.chain, c.key); !errkind.Is(err, errkind.Invalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after := must(r.TokenEndpoint(ctx))(t); after.Sha256 != before.Sha256 {
		t.Error("a refused import changed the certificate")
	}
	got := must(r.TlsImport(ctx, chain, keyPEM(t, serverKey)))(t)
	if got.CertificatePem != chain || r.reopen().PEM() != chain {
		t.Errorf("%+v", got)
	}
	r.clock.Advance(3 * 365 * 24 * time.Hour)
	if _, err := r.TlsImport(ctx, chain, keyPEM(t, serverKey)); !errkind.Is(err, errkind.Invalid) || !strings.Contains(err.Error(), "is valid from") {
		t.Errorf("an expired certificate: %v", err)
	}
	if got := alerts(must(r.Status(ctx))(t)); !slices.Contains(got, dashboard.CertificateExpiry) {
		t.Errorf("notices with an expired certificate: %v", got)
	}
}

func parse(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatal("not PEM")
	}
	return must(x509.ParseCertificate(block.Bytes))(t)
}

func issue(t *testing.T, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: epoch.AddDate(0, 0, -1), NotAfter: epoch.AddDate(1, 0, 0),
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey))(t)
	return must(x509.ParseCertificate(der))(t), key
}

func certPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func keyPEM(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))(t)}))
}
