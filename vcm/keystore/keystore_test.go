package keystore_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

const (
	moduleID = "89051616"
	bucket   = "module"
	name     = "TEST-KMC"
)

var (
	epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	admin = accounts.Actor{Realm: "ssh", Name: "test"}
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

// vault can be told to fail, which is how a test stops the module in the middle.
type vault struct {
	s    *store.Store
	fail error
}

func (v *vault) View(ctx context.Context, fn func(tsm.Tx) error) error {
	return v.s.View(ctx, func(tx *store.Tx) error { return fn(tx.Bucket(bucket)) })
}

func (v *vault) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	if v.fail != nil {
		return v.fail
	}
	return v.s.Update(ctx, func(tx *store.Tx) error { return fn(tx.Bucket(bucket)) })
}

type rig struct {
	*keystore.Keystore
	t      *testing.T
	cfg    keystore.Config
	vault  *vault
	module *tsm.Module
	clock  *clock.Fake
	kmc    *kmc.KMC
	prefs  *accounts.Preferences
	kinds  []string // of audit entries
	// failing makes the audit log, and with it the store's updates of this
	// package, fail.
	failing error
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

func newRig(t *testing.T, registers int) *rig {
	t.Helper()
	dir := must(os.Open(t.TempDir()))(t)
	t.Cleanup(func() { dir.Close() }) // after the store
	key := make([]byte, 32)
	rand.Read(key)
	s := must(store.Open(ctx, store.Config{Dir: dir, Key: key, Counter: new(counter), Quota: 64 << 20, Log: slog.New(slog.DiscardHandler)}))(t)
	t.Cleanup(func() { s.Close() })
	r := &rig{t: t, vault: &vault{s: s}, clock: clock.NewFake(epoch)}
	audit := func(_ *store.Tx, e auditlog.Entry) error {
		if r.failing == nil {
			r.kinds = append(r.kinds, e.Kind)
		}
		return r.failing
	}
	r.module = must(tsm.Open(ctx, tsm.Config{Vault: r.vault, ModuleID: moduleID, Clock: r.clock, Created: epoch, Registers: registers}))(t)
	r.prefs = must(accounts.New(ctx, accounts.Config{Store: s, Audit: audit, Clock: r.clock}))(t).Preferences()
	r.cfg = keystore.Config{Store: s, Module: r.module, ModuleBucket: bucket, Preferences: r.prefs, Audit: audit, Clock: r.clock}
	r.Keystore = must(keystore.New(ctx, r.cfg))(t)
	r.kmc = must(kmc.Init(t.TempDir(), name, epoch.AddDate(-1, 0, 0), epoch.AddDate(5, 0, 0), rand.Reader))(t)
	must(r.kmc.AddModule(r.module.PublicKeyRecord()))(t)
	return r
}

func (r *rig) allowUnapproved() {
	r.t.Helper()
	must(r.prefs.Set(ctx, admin, ^accounts.Permission(0), accounts.PrefAllowUnapprovedKMC, "True"))(r.t)
}

func (r *rig) groups(n int) {
	r.t.Helper()
	for i := range n {
		must(r.kmc.AddGroup(kmc.Group{
			SGC: 100000 + i, KRN: 1, KTC: "VUDK", BDT: 2014, DKG: 4, KEN: 255, SBM: 0xFFFF, ULM: 1000, CLM: tsm.Unlimited,
			ACT: epoch.AddDate(-1, 0, 0), Refresh: 90, SGN: "TEST",
		}))(r.t)
	}
	must(r.kmc.AuthoriseAll(moduleID))(r.t)
}

func (r *rig) publicKey() string { return must(r.kmc.PublicKey())(r.t).Text() }

// answered requests a key load file.
func (r *rig) answered() string {
	r.t.Helper()
	r.clock.Advance(time.Second)
	request := must(r.GenerateRequest(ctx, admin, name))(r.t)
	return must(r.kmc.Answer(request, r.clock.Now()))(r.t).Text
}

func (r *rig) centre() keystore.Centre { return must(r.Centre(ctx, name))(r.t) }

func wantError(t *testing.T, what string, err error, kind errkind.Kind, text string) {
	t.Helper()
	if !errkind.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, expected %s %q", what, err, kind, text)
	}
}

// TestOperatorSteps follows the guide from the public key to the deleted slot.
func TestOperatorSteps(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10)
	r.groups(3)
	_, err := r.GenerateRequest(ctx, admin, name)
	wantError(t, "request without a key", err, errkind.NotFound, "upload it first")
	_, err = r.UploadPublicKey(ctx, admin, r.publicKey())
	wantError(t, "unapproved key", err, errkind.Refused, "ptoken.allowUnapprovedKmcPubkeys")
	_, err = r.UploadPublicKey(ctx, admin, "nonsense")
	wantError(t, "no key", err, errkind.Invalid, "not a KMC public key file")
	r.allowUnapproved()
	if c := must(r.UploadPublicKey(ctx, admin, r.publicKey()))(t); c.KMC != name || c.InModule || c.Approved {
		t.Errorf("uploaded key: %+v", c)
	}
	_, err = r.FetchRequest(ctx, name)
	wantError(t, "no request yet", err, errkind.Mode, "VKLOADREQ")
	request := must(r.GenerateRequest(ctx, admin, name))(t)
	if again := must(r.FetchRequest(ctx, name))(t); again != request || !strings.Contains(request, "BEGIN") {
		t.Errorf("fetched %q, generated %q", again, request)
	}
	if c := r.centre(); c.State != "PENDING" || !c.Request || !c.InModule {
		t.Errorf("after the request: %+v", c)
	}
	_, err = r.LoadAll(ctx, admin, name, 1)
	wantError(t, "load without a file", err, errkind.NotFound, "no key load file")
	_, err = r.UploadKLF(ctx, admin, "Dear operator, no file today")
	wantError(t, "no file", err, errkind.Invalid, "cannot be read as a key load file")

	answer := must(r.kmc.Answer(request, r.clock.Now()))(t).Text
	if c := must(r.UploadKLF(ctx, admin, "Dear operator,\n\n"+answer+"\nRegards"))(t); c.State != "LOADING" || c.InFile != 3 || c.Loaded != 0 {
		t.Errorf("after the upload: %+v", c)
	}
	if keys := must(r.List(ctx, false))(t); len(keys) != 0 {
		t.Errorf("uploading loaded %d keys", len(keys))
	}
	if keys := must(r.List(ctx, true))(t); len(keys) != 3 || keys[0].SGC != 100000 || keys[0].Reason == "" || keys[0].Attributes["SGN"] != "TEST" || keys[0].Attributes["WVK"] != "" {
		t.Errorf("all keys: %+v", keys)
	}
	if p := must(r.LoadAll(ctx, admin, name, 2))(t); p.Loaded != 2 || p.Remaining != 1 || p.Failure != "" {
		t.Errorf("first step: %+v", p)
	}
	if p := must(r.LoadAll(ctx, admin, name, 2))(t); p.Loaded != 1 || p.Remaining != 0 {
		t.Errorf("second step: %+v", p)
	}
	if p := must(r.LoadAll(ctx, admin, name, 2))(t); p.Loaded != 0 || p.Remaining != 0 {
		t.Errorf("third step: %+v", p)
	}
	if c := must(r.EndSession(ctx, admin, name))(t); c.State != "ACTIVE" || c.Loaded != 3 {
		t.Errorf("after the session: %+v", c)
	}
	key := must(r.Show(ctx, 100001, 1))(t)
	if key.Register == 0 || key.Attributes["VND"] != "1" || key.Attributes["ULM"] != "000003E8" || key.KMC != name {
		t.Errorf("loaded key: %+v", key)
	}
	if err := r.Delete(ctx, admin, 100001, 1); err != nil {
		t.Fatal(err)
	}
	if key := must(r.Show(ctx, 100001, 1))(t); key.Register != 0 {
		t.Errorf("deleted key: %+v", key)
	}
	wantError(t, "delete twice", r.Delete(ctx, admin, 100001, 1), errkind.NotFound, "not loaded")
	_, err = r.Load(ctx, admin, 100001, 1)
	wantError(t, "load after the session", err, errkind.Mode, "KMC_KEY_STATE_ERROR")
	_, err = r.Show(ctx, 999999, 1)
	wantError(t, "unknown key", err, errkind.NotFound, "SGC 999999 KRN 1")
	if n := must(r.DeleteSlot(ctx, admin, name))(t); n != 2 {
		t.Errorf("%d registers erased", n)
	}
	if keys := must(r.List(ctx, true))(t); len(keys) != 0 {
		t.Errorf("keys of a deleted KMC: %+v", keys)
	}
	if all := must(r.Centres(ctx))(t); len(all) != 0 {
		t.Errorf("a deleted KMC is listed: %+v", all)
	}
	want := []string{"kmc.key", "kmc.request", "klf.upload", "klf.load", "klf.load", "kmc.endsession", "vk.delete", "klf.load", "kmc.delete"}
	if got := strings.Join(r.kinds[2:], " "); got != strings.Join(want, " ") { // the first user and the preference come first
		t.Errorf("audited %s", got)
	}
}

// TestFullModule: more keys than registers, told as the guides tell it; then
// keys are loaded one by one.
func TestFullModule(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.groups(4)
	r.allowUnapproved()
	must(r.UploadPublicKey(ctx, admin, r.publicKey()))(t)
	must(r.UploadKLF(ctx, admin, r.answered()))(t)
	p := must(r.LoadAll(ctx, admin, name, 10))(t)
	if p.Loaded != 2 || p.Remaining != 2 || p.Failure != "Failed to load all VKs: STS API error VK_REG_NOT_FOUND_ERROR (code 28)" {
		t.Errorf("%+v", p)
	}
	if err := r.Delete(ctx, admin, 100000, 1); err != nil {
		t.Fatal(err)
	}
	if key := must(r.Load(ctx, admin, 100003, 1))(t); key.Register == 0 {
		t.Errorf("%+v", key)
	}
	if key := must(r.Load(ctx, admin, 100003, 1))(t); key.Register == 0 {
		t.Errorf("loaded again: %+v", key)
	}
}

// TestLoadKeysOfOneGroup: a group has keys of several base dates.
// Loading it by its code loads one after another, and none in another's place.
func TestLoadKeysOfOneGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10)
	r.groups(1)
	for _, bdt := range []int{1993, 2035} {
		must(r.kmc.AddGroup(kmc.Group{
			SGC: 100000, KRN: 1, KTC: "VUDK", BDT: bdt, DKG: 4, KEN: 255, SBM: 0xFFFF, ULM: 1, CLM: 1, ACT: epoch.AddDate(-1, 0, 0), Refresh: 90, SGN: "TEST",
		}))(t)
	}
	must(r.kmc.AuthoriseAll(moduleID))(t)
	r.allowUnapproved()
	must(r.UploadPublicKey(ctx, admin, r.publicKey()))(t)
	must(r.UploadKLF(ctx, admin, r.answered()))(t)
	seen := map[string]int{}
	for range 3 {
		key := must(r.Load(ctx, admin, 100000, 1))(t)
		seen[key.Attributes["BDT"]] = key.Register
	}
	if len(seen) != 3 || seen["1993"] == seen["2014"] || seen["2014"] == seen["2035"] || seen["1993"] == seen["2035"] {
		t.Errorf("registers by base date: %v", seen)
	}
	if key := must(r.Load(ctx, admin, 100000, 1))(t); seen[key.Attributes["BDT"]] != key.Register {
		t.Errorf("loaded again: base date %s into register %d of %v", key.Attributes["BDT"], key.Register, seen)
	}
	if keys := must(r.List(ctx, false))(t); len(keys) != 3 {
		t.Errorf("%d keys are in the module", len(keys))
	}
}

// TestWrongFile: an answer to an older request, and one for another module,
// change nothing.
func TestWrongFile(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10)
	r.groups(2)
	r.allowUnapproved()
	must(r.UploadPublicKey(ctx, admin, r.publicKey()))(t)
	must(r.UploadKLF(ctx, admin, r.answered()))(t)
	must(r.LoadAll(ctx, admin, name, 10))(t)
	must(r.EndSession(ctx, admin, name))(t)
	old := r.answered()
	r.anotherGroup()
	r.answered() // a newer request
	_, err := r.UploadKLF(ctx, admin, old)
	wantError(t, "an answer out of order", err, errkind.Refused, "SM.3B.8: Bad VKLOADRESP: wrong timestamp (TVP)")
	if c := r.centre(); c.InFile != 2 || c.Loaded != 2 || c.State != "PENDING" {
		t.Errorf("after the refusal: %+v", c)
	}
	other := newRig(t, 10)
	other.groups(1)
	other.allowUnapproved()
	must(other.UploadPublicKey(ctx, admin, other.publicKey()))(t)
	_, err = r.UploadKLF(ctx, admin, other.answered())
	if err == nil {
		t.Error("another KMC's file was accepted")
	}
	if keys := must(r.List(ctx, true))(t); len(keys) != 2 {
		t.Errorf("keys after refusals: %+v", keys)
	}
}

func (r *rig) anotherGroup() {
	r.t.Helper()
	must(r.kmc.AddGroup(kmc.Group{
		SGC: 200000, KRN: 1, KTC: "VUDK", BDT: 2014, DKG: 4, KEN: 255, SBM: 0xFFFF, ULM: 1, CLM: 1, ACT: epoch.AddDate(-1, 0, 0), Refresh: 90, SGN: "TEST",
	}))(r.t)
	must(r.kmc.AuthoriseAll(moduleID))(r.t)
}

// TestInterrupted stops an upload before and after the module took the
// response; opened again, the keystore has the file exactly if the module is
// LOADING.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10)
	r.groups(2)
	r.allowUnapproved()
	must(r.UploadPublicKey(ctx, admin, r.publicKey()))(t)
	file := r.answered()

	// The module cannot write: the file is dropped again.
	r.vault.fail = errkind.Errorf(errkind.Unavailable, "power cut")
	_, err := r.UploadKLF(ctx, admin, file)
	wantError(t, "module without power", err, errkind.Unavailable, "power cut")
	r.vault.fail = nil
	if c := r.centre(); c.InFile != 0 || c.State != "PENDING" {
		t.Errorf("after the power cut: %+v", c)
	}

	// The file is stored, the module took the response, the rest is missing.
	cut, cancel := context.WithCancel(ctx)
	_, err = r.uploadAndCut(cut, cancel, file)
	if err == nil {
		t.Fatal("the upload was not cut")
	}
	if c := r.centre(); c.State != "LOADING" || c.InFile != 0 {
		t.Fatalf("the cut came at another place: %+v", c)
	}
	r.Keystore = must(keystore.New(ctx, r.cfg))(t)
	if c := r.centre(); c.State != "LOADING" || c.InFile != 2 {
		t.Errorf("opened again: %+v", c)
	}
	if p := must(r.LoadAll(ctx, admin, name, 10))(t); p.Loaded != 2 {
		t.Errorf("%+v", p)
	}
}

// uploadAndCut cancels the upload's context as soon as the module is LOADING.
func (r *rig) uploadAndCut(cut context.Context, cancel context.CancelFunc, file string) (keystore.Centre, error) {
	cfg := r.cfg
	watched := &cutVault{vault: r.vault, cancel: cancel}
	cfg.Module = must(tsm.Open(ctx, tsm.Config{Vault: watched, ModuleID: moduleID, Clock: r.clock, Created: epoch, Registers: 10}))(r.t)
	return must(keystore.New(ctx, cfg))(r.t).UploadKLF(cut, admin, file)
}

// cutVault cancels after its first update.
type cutVault struct {
	*vault
	cancel context.CancelFunc
}

func (v *cutVault) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	err := v.vault.Update(ctx, fn)
	if err == nil {
		v.cancel()
	}
	return err
}
