package pos_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// fakeModule numbers its tokens and counts debits in the vault, so that what a
// refused call leaves behind can be seen.
type fakeModule struct {
	refuse  error
	loading bool
}

var debits = []byte("debits")

func (m *fakeModule) debit(tx tsm.Tx) (tsm.Issued, error) {
	raw, err := tx.Get(debits)
	if err != nil {
		return tsm.Issued{}, err
	}
	n := len(raw) + 1
	if err := tx.Put(debits, make([]byte, n)); err != nil {
		return tsm.Issued{}, err
	}
	switch {
	case m.loading:
		return tsm.Issued{}, &tsm.Error{Code: tsm.CodeKMCKeyState, Text: "loading"}
	case m.refuse != nil:
		return tsm.Issued{}, m.refuse
	}
	return tsm.Issued{Dec: fmt.Sprintf("%020d", n), Hex: fmt.Sprintf("%017X", n)}, nil
}

func (m *fakeModule) Credit(tx tsm.Tx, _ tsm.CreditInput) (tsm.Issued, error) { return m.debit(tx) }
func (m *fakeModule) Management(tx tsm.Tx, _ tsm.ManagementInput) (tsm.Issued, error) {
	return m.debit(tx)
}
func (m *fakeModule) KeyChange(tx tsm.Tx, in tsm.KeyChangeInput) (tsm.KeySet, error) {
	one, err := m.debit(tx)
	return tsm.KeySet{Tokens: slices.Repeat([]tsm.Issued{one}, in.NumTokens)}, err
}
func (m *fakeModule) Verify(tsm.Tx, tsm.VerifyInput) (tsm.Verified, error) {
	return tsm.Verified{Result: tsm.CodeKeyIssueExpired}, nil
}
func (m *fakeModule) Find(_ tsm.Tx, sgc, _ int) ([]tsm.Attributes, error) {
	if sgc != 123456 {
		return nil, nil
	}
	return []tsm.Attributes{{Register: 1, KMC: "TEST-KMC", SGC: sgc, KRN: 1, KEN: 255, BDT: 2014, KCV: "ABCDEF", ACT: epoch.AddDate(-1, 0, 0), IUT: epoch.AddDate(9, 0, 0)}}, nil
}
func (m *fakeModule) IDSM() string {
	return "SMID.1:Tesserae:00000001:20260101T000000Z:0000000000000000:0000"
}

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

type rig struct {
	*pos.Service
	t      *testing.T
	store  *store.Store
	module *fakeModule
	clock  *clock.Fake
	prefs  *accounts.Preferences
	log    []auditlog.Entry
}

func newRig(t *testing.T, testMode bool) *rig {
	t.Helper()
	ctx := context.Background()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() }) // after the store
	key := make([]byte, 32)
	rand.Read(key)
	r := &rig{t: t, module: new(fakeModule), clock: clock.NewFake(epoch)}
	if r.store, err = store.Open(ctx, store.Config{Dir: dir, Key: key, Counter: new(counter), Quota: 64 << 20, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	a, err := accounts.New(ctx, accounts.Config{Store: r.store, Clock: r.clock, Audit: func(*store.Tx, auditlog.Entry) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	r.prefs = a.Preferences()
	r.Service, err = pos.New(pos.Config{
		Store: r.store, Module: r.module, ModuleBucket: "module", Preferences: r.prefs, Clock: r.clock, TestMode: testMode, FirmwareID: "STS64V10",
		Audit: func(_ *store.Tx, e auditlog.Entry) error { r.log = append(r.log, e); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var vending = pos.Caller{Realm: "local", Username: "vending"}

func meter(serial int) pos.MeterConfig {
	pan, err := sts.NewPAN("12", fmt.Sprintf("%08d", serial))
	if err != nil {
		panic(err)
	}
	return pos.MeterConfig{DRN: pan.DRN(), EA: 7, TCT: 2, SGC: 123456, KRN: 1, TI: 1, KEN: 255, AllowKRNUpdate: true, AllowKENUpdate: true}
}

func (r *rig) credit(c pos.Caller, message string, serial int) (pos.Token, error) {
	got, err := r.Credit(context.Background(), pos.Issue{Caller: c, MessageID: message, Meter: meter(serial), Amount: 10})
	if err != nil {
		return pos.Token{}, err
	}
	return got[len(got)-1], nil
}

func (r *rig) debited() (n int) {
	r.t.Helper()
	err := r.store.View(context.Background(), func(tx *store.Tx) error {
		raw, err := tx.Bucket("module").Get(debits)
		n = len(raw)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func wantFault(t *testing.T, what string, err error, key pos.Key, text string) {
	t.Helper()
	var f *pos.Fault
	if !errors.As(err, &f) || f.Key != key || !strings.Contains(f.Error(), text) {
		t.Errorf("%s: %v, expected %s %q", what, err, key, text)
	}
}

// TestResults: the newest results of each caller, and nobody else's.
func TestResults(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	ctx := context.Background()
	if _, err := r.prefs.Set(ctx, accounts.Actor{}, ^accounts.Permission(0), accounts.PrefResultCache, "100"); err != nil {
		t.Fatal(err)
	}
	other := pos.Caller{Realm: "local", Username: "vending2"}
	foreign := pos.Caller{Realm: "ssh", Username: "vending"}
	if _, err := r.credit(other, "theirs", 1); err != nil {
		t.Fatal(err)
	}
	var last pos.Token
	for i := range 150 {
		var err error
		if last, err = r.credit(vending, fmt.Sprintf("m-%d", i), i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 150 {
		got, err := r.Fetch(ctx, vending, fmt.Sprintf("m-%d", i))
		if i < 50 {
			wantFault(t, "an old result", err, pos.CacheMiss, "")
		} else if err != nil || len(got) != 1 || got[0].DRN != meter(i).DRN {
			t.Errorf("result %d: %+v, %v", i, got, err)
		}
	}
	if got, err := r.Fetch(ctx, vending, "m-149"); err != nil || got[0] != last {
		t.Errorf("fetched %+v, issued %+v: %v", got, last, err)
	}
	for who, c := range map[string]pos.Caller{"another user": other, "another realm": foreign} {
		_, err := r.Fetch(ctx, c, "m-149")
		wantFault(t, who, err, pos.CacheMiss, "not found in the cache")
	}
	if _, err := r.Fetch(ctx, other, "theirs"); err != nil {
		t.Errorf("a quiet caller lost its result to a busy one: %v", err)
	}
	again, err := r.credit(vending, "m-140", 140)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Fetch(ctx, vending, "m-140"); err != nil || got[0] != again {
		t.Errorf("the second of two calls with one message id: %+v, %v", got, err)
	}
	if err := r.Forget(ctx, vending); err != nil {
		t.Fatal(err)
	}
	_, err = r.Fetch(ctx, vending, "m-149")
	wantFault(t, "a forgotten caller", err, pos.CacheMiss, "")
	if _, err := r.Fetch(ctx, other, "theirs"); err != nil {
		t.Errorf("another caller was forgotten too: %v", err)
	}
}

// TestRefusalLeavesNothing: a call that fails has not taken an identifier, nor
// a debit, nor a place among the results.
func TestRefusalLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	ctx := context.Background()
	first, err := r.credit(vending, "first", 1)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		set  func()
		key  pos.Key
		text string
	}{
		"limit":    {func() { r.module.refuse = &tsm.Error{Code: tsm.CodeInsufficientCredit} }, pos.SecurityModule, "Security Module error '31': STS API error INSUFFICIENT_CREDIT_BALANCE"},
		"extended": {func() { r.module.refuse = &tsm.Error{Code: tsm.CodeExtended, Text: "SM.1.2: why"} }, pos.SecurityModule, "Security Module error 'EE': SM.1.2: why"},
		"loading":  {func() { r.module.loading = true }, pos.KeyNotFound, "SGC=123456,KRN=1 (reason: the KEK slot of TEST-KMC is LOADING"},
	} {
		c.set()
		_, err := r.credit(vending, "refused", 1)
		wantFault(t, what, err, c.key, c.text)
		r.module.refuse, r.module.loading = nil, false
	}
	if n := r.debited(); n != 1 {
		t.Errorf("%d debits after one token", n)
	}
	_, err = r.Fetch(ctx, vending, "refused")
	wantFault(t, "the result of a refusal", err, pos.CacheMiss, "")
	second, err := r.credit(vending, "second", 1)
	if err != nil || second.TID != first.TID+1 {
		t.Errorf("after refusals the next identifier is %d, before them it was %d: %v", second.TID, first.TID, err)
	}
}

// TestCompact forgets meters that the module's window protects, and no others.
func TestCompact(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, testMode := range []bool{false, true} {
		r := newRig(t, testMode)
		for i := range 20 {
			if _, err := r.credit(vending, "m", i); err != nil {
				t.Fatal(err)
			}
		}
		special := pos.Issue{Caller: vending, MessageID: "s", Meter: meter(0), Amount: 1, Flags: pos.FlagSpecialReserved}
		if _, err := r.Credit(ctx, special); err != nil {
			t.Fatal(err)
		}
		if n, err := r.Compact(ctx); err != nil || n != 0 {
			t.Errorf("test mode %v: %d fresh records removed, %v", testMode, n, err)
		}
		r.clock.Advance(14 * 24 * time.Hour)
		for i := range 5 {
			if _, err := r.credit(vending, "m", i); err != nil {
				t.Fatal(err)
			}
		}
		r.clock.Advance(2 * 24 * time.Hour)
		want := 15
		if testMode {
			want = 0
		}
		if n, err := r.Compact(ctx); err != nil || n != want {
			t.Errorf("test mode %v: %d records removed, expected %d: %v", testMode, n, want, err)
		}
		if n, err := r.Compact(ctx); err != nil || n != 0 {
			t.Errorf("test mode %v: compacted again: %d, %v", testMode, n, err)
		}
	}
}

// TestResetTIDs is for compliance tests: off otherwise.
func TestResetTIDs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, err := newRig(t, false).ResetTIDs(ctx, vending, "reset", "*")
	wantFault(t, "outside test mode", err, pos.Disabled, "Feature disabled: ")
	r := newRig(t, true)
	first, err := r.credit(vending, "m", 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "12x", strings.Repeat("1", 19)} {
		_, err := r.ResetTIDs(ctx, vending, "reset", bad)
		wantFault(t, "pattern", err, pos.ParamRange, "'panPattern'")
	}
	if got, err := r.ResetTIDs(ctx, vending, "reset", "9*"); err != nil || got == nil || len(got) != 0 {
		t.Errorf("no meter matches: %v, %v", got, err)
	}
	if got, err := r.ResetTIDs(ctx, vending, "reset", "600727*"); err != nil || !slices.Equal(got, []string{first.DRN}) {
		t.Errorf("reset %v, %v", got, err)
	}
	want := auditlog.Entry{Time: epoch, Kind: "tid.reset", Actor: "local:vending", Subject: "600727*", Detail: map[string]string{"message": "reset", "meters": "1"}}
	if len(r.log) != 2 || !reflect.DeepEqual(r.log[1], want) {
		t.Errorf("the audit log has %v, expected a reset of none and %v", r.log, want)
	}
	if again, err := r.credit(vending, "m", 7); err != nil || again.TID != first.TID {
		t.Errorf("after the reset the identifier is %d, before it %d: %v", again.TID, first.TID, err)
	}
}

// TestVerifyIssueExpired: this result of the module has no code of its own.
func TestVerifyIssueExpired(t *testing.T) {
	t.Parallel()
	_, err := newRig(t, false).Verify(context.Background(), pos.Verify{Meter: meter(1), TokenDec: "00000000000000000001"})
	wantFault(t, "verify", err, pos.SecurityModule, "'42': STS API error KEY_ISSUE_EXPIRED_ERROR")
}
