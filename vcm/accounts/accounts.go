// Package accounts keeps who may use a virtual module: users with roles,
// passwords, sign-in sessions, and the preferences that govern them.
//
// # Records
//
// Users and preferences are records of the VCM's store; each change is one
// transaction together with its audit entry, which names what was before and
// what is after, never a password or its hash. Sessions live in memory only:
// a restart signs everybody out.
//
// # No default password
//
// A new VCM has one user, "admin", without a password. Nobody can sign in
// until the tenant sets one over the administrative service.
package accounts

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Realm is the only realm of users.
const Realm = "local"

// BuiltIn is the user that exists from the start.
const BuiltIn = "admin"

// Buckets of the store that belong to this package.
const (
	bucketUsers = "users"
	bucketPrefs = "preferences"
)

// AuditFunc appends an entry to the audit log in the caller's transaction.
type AuditFunc func(tx *store.Tx, e auditlog.Entry) error

// Config is what Accounts needs.
type Config struct {
	Store *store.Store
	Audit AuditFunc
	Clock clock.Clock
	Rand  io.Reader    // crypto/rand.Reader if nil
	Log   *slog.Logger // discarded if nil
}

// Actor is who makes a change, for the audit log.
type Actor struct {
	Realm   string // "local" for a user, "ssh" for the holder of a service key
	Name    string
	Address string // where from, may be empty
}

// String is the actor's form in audit entries.
func (a Actor) String() string {
	if a.Address == "" {
		return a.Realm + ":" + a.Name
	}
	return a.Realm + ":" + a.Name + "@" + a.Address
}

// Accounts is the register of users and preferences, and the open sessions.
type Accounts struct {
	store *store.Store
	audit AuditFunc
	clock clock.Clock
	rand  io.Reader
	log   *slog.Logger

	prefs    *Preferences
	hasher   *hasher
	sessions *sessions
	throttle *throttle

	// changes serialises writers of user records, so that the copy in memory
	// follows the order of the commits. Sign-ins that succeed do not take it.
	changes sync.Mutex
	mu      sync.RWMutex
	users   map[string]*account
}

// New reads users and preferences, creating the built-in user on first use.
func New(ctx context.Context, cfg Config) (*Accounts, error) {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Accounts{
		store: cfg.Store, audit: cfg.Audit, clock: cfg.Clock, rand: cfg.Rand, log: cfg.Log,
		sessions: newSessions(), throttle: newThrottle(), hasher: newHasher(),
		users: make(map[string]*account),
	}
	prefs, err := loadPreferences(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a.prefs = prefs
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// Preferences returns the module's preferences.
func (a *Accounts) Preferences() *Preferences { return a.prefs }

func (a *Accounts) now() time.Time { return a.clock.Now().UTC() }
