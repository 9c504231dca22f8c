package accounts_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

var admin = accounts.Actor{Realm: "ssh", Name: "test"}

const good = "Passw0rd"

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

// rig is a register of accounts on a real store, with what it audits.
type rig struct {
	*accounts.Accounts
	t       *testing.T
	dir     string
	key     []byte
	counter *counter
	clock   *clock.Fake
	store   *store.Store

	mu     sync.Mutex
	audits []auditlog.Entry
	refuse error // the audit log's answer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), key: make([]byte, 32), counter: new(counter), clock: clock.NewFake(epoch)}
	if _, err := rand.Read(r.key); err != nil {
		t.Fatal(err)
	}
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	ctx := context.Background()
	dir, err := os.Open(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { dir.Close() }) // after the store
	if r.store, err = store.Open(ctx, store.Config{Dir: dir, Key: r.key, Counter: r.counter, Quota: 16 << 20, Log: slog.New(slog.DiscardHandler)}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.store.Close() })
	audit := func(_ *store.Tx, e auditlog.Entry) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.refuse != nil {
			return r.refuse
		}
		r.audits = append(r.audits, e)
		return nil
	}
	if r.Accounts, err = accounts.New(ctx, accounts.Config{Store: r.store, Audit: audit, Clock: r.clock}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) reopen() {
	r.t.Helper()
	if err := r.store.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

// last is the newest audit entry.
func (r *rig) last() auditlog.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.audits[len(r.audits)-1]
}

func (r *rig) create(name string, roles ...string) {
	r.t.Helper()
	if _, err := r.Create(context.Background(), admin, accounts.NewUser{Username: name, Roles: roles, Password: good}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) set(name, value string) {
	r.t.Helper()
	if _, err := r.Preferences().Set(context.Background(), admin, ^accounts.Permission(0), name, value); err != nil {
		r.t.Fatal(err)
	}
}

// signIn signs an API user in from an address.
func (r *rig) signIn(name, password, address string) (string, error) {
	return r.SignIn(context.Background(), accounts.SignIn{
		Realm: accounts.Realm, Username: name, Password: password, Address: address, Require: accounts.MayUseAPI,
	})
}
