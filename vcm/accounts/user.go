package accounts

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// maxUsers bounds the register; it is read into memory at the start.
const maxUsers = 1000

// identPattern is compiled at its first use, like the others of a VCM: its start
// is short.
var identPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_\-.,]{0,39}$`) })

// record is a user as stored.
type record struct {
	Roles          []Role    `json:"roles"`
	Disabled       bool      `json:"disabled,omitempty"`
	Hash           string    `json:"hash,omitempty"`
	PasswordSet    time.Time `json:"passwordSet"`
	History        []string  `json:"history,omitempty"` // former hashes, newest first
	AccountExpires time.Time `json:"accountExpires"`    // zero: never
	Created        time.Time `json:"created"`
	LastSignIn     time.Time `json:"lastSignIn"`
	Failures       int       `json:"failures,omitempty"`
	Locked         bool      `json:"locked,omitempty"`
	LockedUntil    time.Time `json:"lockedUntil"` // zero with Locked: until unlocked

	may Permission // what Roles grant
}

// account is a user in memory: the record as last committed. Sessions point to it.
type account struct {
	name string
	rec  atomic.Pointer[record]
	gone atomic.Bool
}

// publish makes a committed record the one that sessions see.
func (u *account) publish(rec *record) {
	rec.may = permissions(rec.Roles)
	u.rec.Store(rec)
}

func (r *record) lockedAt(now time.Time) bool {
	return r.Locked && (r.LockedUntil.IsZero() || now.Before(r.LockedUntil))
}

// User is what may be shown of a user.
type User struct {
	Username        string
	Roles           []Role
	PasswordSet     bool
	Disabled        bool
	Locked          bool
	AccountExpires  time.Time // zero: never
	PasswordExpires time.Time // zero: no password
	LastSignIn      time.Time
	FailedSignIns   int
}

// NewUser describes a user to create. Without a password the user cannot sign
// in until one is set.
type NewUser struct {
	Username       string
	Roles          []Role
	Password       string
	AccountExpires time.Time // zero: after account.default.lifetime.days
}

// Change is what to change of a user; nil stays as it is.
type Change struct {
	Roles          []Role
	Disabled       *bool
	AccountExpires *time.Time
	Unlock         bool
}

func (a *Accounts) load(ctx context.Context) error {
	err := a.store.View(ctx, func(tx *store.Tx) error {
		return tx.Bucket(bucketUsers).Range(nil, func(key, value []byte) error {
			rec := new(record)
			if err := json.Unmarshal(value, rec); err != nil {
				return errkind.Errorf(errkind.Integrity, "record of user %q: %w", key, err)
			}
			u := &account{name: string(key)}
			u.publish(rec)
			a.users[u.name] = u
			return nil
		})
	})
	if err != nil || len(a.users) > 0 {
		return err
	}
	now := a.now()
	rec := &record{Roles: []Role{RoleAdmin, RoleTokenAdmin}, Created: now}
	_, err = a.put(ctx, BuiltIn, rec, nil, auditlog.Entry{
		Time: now, Kind: "user.create", Actor: "system:vcm", Subject: BuiltIn,
		Detail: map[string]string{"roles": strings.Join(rec.Roles, ","), "password": "none"},
	})
	return err
}

// put commits a user's record with its audit entry and publishes it in memory.
// Callers hold changes, except load.
func (a *Accounts) put(ctx context.Context, name string, rec *record, u *account, e auditlog.Entry) (*account, error) {
	text, err := json.Marshal(rec)
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "record of user %q: %w", name, err)
	}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Bucket(bucketUsers).Put([]byte(name), text); err != nil {
			return err
		}
		if e.Kind == "" {
			return nil
		}
		return a.audit(tx, e)
	})
	if err != nil {
		return nil, err
	}
	if u == nil {
		u = &account{name: name}
		u.publish(rec)
		a.mu.Lock()
		a.users[name] = u
		a.mu.Unlock()
		return u, nil
	}
	u.publish(rec)
	return u, nil
}

func (a *Accounts) find(name string) (*account, error) {
	a.mu.RLock()
	u := a.users[name]
	a.mu.RUnlock()
	if u == nil {
		return nil, errkind.Errorf(errkind.NotFound, "no user %q", name)
	}
	return u, nil
}

func (a *Accounts) show(u *account) User {
	rec, now := u.rec.Load(), a.now()
	out := User{
		Username: u.name, Roles: slices.Clone(rec.Roles), PasswordSet: rec.Hash != "", Disabled: rec.Disabled || slices.Contains(rec.Roles, RoleNone),
		Locked: rec.lockedAt(now), AccountExpires: rec.AccountExpires, LastSignIn: rec.LastSignIn, FailedSignIns: rec.Failures,
	}
	if rec.Hash != "" {
		out.PasswordExpires = a.passwordExpires(rec)
	}
	return out
}

func (a *Accounts) passwordExpires(rec *record) time.Time {
	return rec.PasswordSet.AddDate(0, 0, int(a.prefs.Int(PrefPasswordMaxAge)))
}

// Users lists every user by name.
func (a *Accounts) Users() []User {
	a.mu.RLock()
	names := slices.Sorted(maps.Keys(a.users))
	out := make([]User, 0, len(names))
	for _, n := range names {
		out = append(out, a.show(a.users[n]))
	}
	a.mu.RUnlock()
	return out
}

// User shows one user.
func (a *Accounts) User(name string) (User, error) {
	u, err := a.find(name)
	if err != nil {
		return User{}, err
	}
	return a.show(u), nil
}

// Create makes a user.
func (a *Accounts) Create(ctx context.Context, by Actor, n NewUser) (User, error) {
	if !identPattern().MatchString(n.Username) {
		return User{}, errkind.Errorf(errkind.Invalid,
			"user name %q: use 1 to 40 letters, digits and _ - . , starting with a letter or digit", n.Username)
	}
	roles, err := checkRoles(n.Roles)
	if err != nil {
		return User{}, err
	}
	now := a.now()
	if n.AccountExpires.IsZero() {
		n.AccountExpires = now.AddDate(0, 0, int(a.prefs.Int(PrefAccountLifetime)))
	}
	if !n.AccountExpires.After(now) {
		return User{}, errkind.Errorf(errkind.Invalid, "account expiry %s is in the past; it is %s now",
			n.AccountExpires.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	rec := &record{Roles: roles, Created: now, AccountExpires: n.AccountExpires.UTC()}
	password := "none"
	if n.Password != "" {
		if err := a.setHash(ctx, n.Username, rec, n.Password); err != nil {
			return User{}, err
		}
		password = "set"
	}
	a.changes.Lock()
	defer a.changes.Unlock()
	a.mu.RLock()
	_, exists := a.users[n.Username]
	count := len(a.users)
	a.mu.RUnlock()
	switch {
	case exists:
		return User{}, errkind.Errorf(errkind.Refused, "user %q exists already", n.Username)
	case count >= maxUsers:
		return User{}, errkind.Errorf(errkind.Limit, "there are %d users already; delete one first", count)
	}
	u, err := a.put(ctx, n.Username, rec, nil, a.entry("user.create", by, n.Username, map[string]string{
		"roles": strings.Join(roles, ","), "accountExpires": stamp(rec.AccountExpires), "password": password}))
	if err != nil {
		return User{}, err
	}
	return a.show(u), nil
}

// Change changes roles, expiry or state of a user. What it takes away ends
// for open sessions at once, because sessions ask the current record.
func (a *Accounts) Change(ctx context.Context, by Actor, name string, c Change) (User, error) {
	var roles []Role
	if c.Roles != nil {
		var err error
		if roles, err = checkRoles(c.Roles); err != nil {
			return User{}, err
		}
	}
	a.changes.Lock()
	defer a.changes.Unlock()
	u, err := a.find(name)
	if err != nil {
		return User{}, err
	}
	rec := *u.rec.Load()
	detail := make(map[string]string)
	note := func(field, before, after string) {
		if before != after {
			detail[field+".before"], detail[field+".after"] = before, after
		}
	}
	if roles != nil {
		note("roles", strings.Join(rec.Roles, ","), strings.Join(roles, ","))
		rec.Roles = roles
	}
	if c.Disabled != nil {
		note("disabled", strconv.FormatBool(rec.Disabled), strconv.FormatBool(*c.Disabled))
		rec.Disabled = *c.Disabled
	}
	if c.AccountExpires != nil {
		note("accountExpires", stamp(rec.AccountExpires), stamp(*c.AccountExpires))
		rec.AccountExpires = c.AccountExpires.UTC()
		if c.AccountExpires.IsZero() {
			rec.AccountExpires = time.Time{}
		}
	}
	if c.Unlock {
		note("locked", strconv.FormatBool(rec.Locked), "false")
		note("failures", strconv.Itoa(rec.Failures), "0")
		rec.Locked, rec.LockedUntil, rec.Failures = false, time.Time{}, 0
	}
	if len(detail) == 0 {
		return a.show(u), nil
	}
	if _, err := a.put(ctx, name, &rec, u, a.entry("user.change", by, name, detail)); err != nil {
		return User{}, err
	}
	return a.show(u), nil
}

// SetPassword sets a user's password, unlocks the account and ends its sessions.
func (a *Accounts) SetPassword(ctx context.Context, by Actor, name, password string) error {
	a.changes.Lock()
	defer a.changes.Unlock()
	u, err := a.find(name)
	if err != nil {
		return err
	}
	rec := *u.rec.Load()
	before := "none"
	if rec.Hash != "" {
		before = "set " + stamp(rec.PasswordSet)
	}
	if err := a.setHash(ctx, name, &rec, password); err != nil {
		return err
	}
	if name == BuiltIn && before == "none" && rec.AccountExpires.IsZero() {
		rec.AccountExpires = a.now().AddDate(0, 0, int(a.prefs.Int(PrefAccountLifetime)))
	}
	rec.Locked, rec.LockedUntil, rec.Failures = false, time.Time{}, 0
	_, err = a.put(ctx, name, &rec, u, a.entry("user.password", by, name, map[string]string{
		"before": before, "after": "set " + stamp(rec.PasswordSet)}))
	if err != nil {
		return err
	}
	a.sessions.closeAll(u)
	return nil
}

// setHash puts a new password into rec, which keeps former hashes as its history.
func (a *Accounts) setHash(ctx context.Context, name string, rec *record, password string) error {
	p := a.prefs.policy()
	if err := p.check(name, password); err != nil {
		return err
	}
	var former []string
	if rec.Hash != "" {
		former = append([]string{rec.Hash}, rec.History...)
	}
	former = former[:min(len(former), p.history)]
	for _, h := range former {
		used, err := a.hasher.verify(ctx, h, password, nil)
		if err != nil {
			return err
		}
		if used {
			return errkind.Errorf(errkind.Invalid, "this password is one of the last %d of user %q: choose another", p.history, name)
		}
	}
	hash, err := a.hasher.hash(ctx, a.rand, password, a.prefs.hashCost())
	if err != nil {
		return err
	}
	rec.Hash, rec.History, rec.PasswordSet = hash, former, a.now()
	return nil
}

// Delete removes a user and ends its sessions.
func (a *Accounts) Delete(ctx context.Context, by Actor, name string) error {
	a.changes.Lock()
	defer a.changes.Unlock()
	u, err := a.find(name)
	if err != nil {
		return err
	}
	if name == BuiltIn {
		return errkind.Errorf(errkind.Refused, "the built-in user %q cannot be deleted; give it the role %q instead", name, RoleNone)
	}
	rec := u.rec.Load()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Bucket(bucketUsers).Delete([]byte(name)); err != nil {
			return err
		}
		return a.audit(tx, a.entry("user.delete", by, name, map[string]string{"roles": strings.Join(rec.Roles, ",")}))
	})
	if err != nil {
		return err
	}
	u.gone.Store(true)
	a.mu.Lock()
	delete(a.users, name)
	a.mu.Unlock()
	a.sessions.closeAll(u)
	return nil
}

func (a *Accounts) entry(kind string, by Actor, subject string, detail map[string]string) auditlog.Entry {
	return auditlog.Entry{Time: a.now(), Kind: kind, Actor: by.String(), Subject: subject, Detail: detail}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
