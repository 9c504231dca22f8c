package accounts

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// SignInReason says why a sign-in failed. The caller may be told; the texts
// for it are the edge's.
type SignInReason uint8

// Reasons, in the order in which they are checked.
const (
	UnknownRealm SignInReason = iota + 1
	UnknownUser
	BadCredentials // wrong password, or the account or password is expired, locked, disabled
	NoPermission
)

// SignInError is a refused sign-in.
type SignInError struct {
	Reason SignInReason
	Detail string // for the log, not for the caller
}

func (e *SignInError) Error() string { return "sign-in refused: " + e.Detail }

// Unwrap lets the error travel as one of internal/errkind's.
func (e *SignInError) Unwrap() error { return errkind.Errorf(errkind.Unauthorised, "%s", e.Detail) }

// SignIn is a request to sign in.
type SignIn struct {
	Realm    string
	Username string
	Password string
	Address  string // of the client, for the throttle
	// Require is the permission without which the sign-in is refused; any one
	// of its bits is enough.
	Require Permission
}

// signInNote is how often a user's last sign-in is written down; each vend may
// begin with one.
const signInNote = time.Hour

// SignIn checks a password and opens a session.
func (a *Accounts) SignIn(ctx context.Context, in SignIn) (token string, err error) {
	if in.Realm != Realm {
		return "", &SignInError{UnknownRealm, "unknown realm"}
	}
	limit := a.prefs.Int(PrefAddressFailures)
	if !a.throttle.allows(in.Address, a.now(), limit) {
		return "", &SignInError{BadCredentials, "too many failures from this address"}
	}
	u, err := a.find(in.Username)
	if err != nil {
		a.failedAddress(in, limit)
		if a.prefs.Bool(PrefHideUnknownUsers) {
			if _, err := a.hasher.hash(ctx, a.rand, in.Password, a.prefs.hashCost()); err != nil {
				return "", err
			}
			return "", &SignInError{BadCredentials, "unknown user"}
		}
		return "", &SignInError{UnknownUser, "unknown user"}
	}
	if err := a.checkState(u); err != nil {
		a.failedAddress(in, limit)
		return "", err
	}
	// Asked again with the processor in hand: of many sign-ins that arrive
	// together only those already being evaluated escape a lock-out.
	again := func() error {
		if !a.throttle.allows(in.Address, a.now(), limit) {
			return &SignInError{BadCredentials, "too many failures from this address"}
		}
		return a.checkState(u)
	}
	ok, err := a.hasher.verify(ctx, u.rec.Load().Hash, in.Password, again)
	if err != nil {
		return "", err
	}
	if !ok {
		a.failedAddress(in, limit)
		a.failedUser(ctx, u, in.Address)
		return "", &SignInError{BadCredentials, "wrong password"}
	}
	if u.rec.Load().may&in.Require == 0 {
		return "", &SignInError{NoPermission, "the account lacks the permission"}
	}
	a.signedIn(ctx, u)
	return a.openSession(u)
}

func (a *Accounts) openSession(u *account) (string, error) {
	lifetime := a.prefs.Int(PrefSessionTimeout)
	now := a.now()
	token, err := a.sessions.open(a.rand, u, now, now.Add(time.Duration(lifetime)*time.Second))
	if err != nil {
		return "", err
	}
	if u.gone.Load() { // deleted meanwhile
		a.sessions.closeAll(u)
		return "", &SignInError{BadCredentials, "the account was deleted"}
	}
	return token, nil
}

// checkState refuses an account that could not sign in with any password.
func (a *Accounts) checkState(u *account) error {
	rec, now := u.rec.Load(), a.now()
	detail := ""
	switch {
	case rec.Hash == "":
		detail = "no password set"
	case rec.Disabled:
		detail = "account disabled"
	case rec.lockedAt(now):
		detail = "account locked"
	case !rec.AccountExpires.IsZero() && !now.Before(rec.AccountExpires):
		detail = "account expired"
	case !now.Before(a.passwordExpires(rec)):
		detail = "password expired"
	default:
		return nil
	}
	return &SignInError{BadCredentials, detail}
}

func (a *Accounts) failedAddress(in SignIn, limit int64) {
	if a.throttle.failed(in.Address, a.now(), limit) {
		a.log.Warn("sign-ins from an address are being refused", "address", in.Address, "failures", limit)
	}
}

// failedUser counts a wrong password durably, so that a restart is no new
// chance, and locks the account at the threshold.
func (a *Accounts) failedUser(ctx context.Context, u *account, address string) {
	a.changes.Lock()
	defer a.changes.Unlock()
	now := a.now()
	rec := *u.rec.Load()
	if rec.lockedAt(now) || u.gone.Load() {
		return
	}
	if rec.Locked { // the lock ran out
		rec.Locked, rec.LockedUntil, rec.Failures = false, time.Time{}, 0
	}
	rec.Failures++
	entry := a.entry("", Actor{}, u.name, nil)
	if int64(rec.Failures) >= a.prefs.Int(PrefLockoutThreshold) {
		rec.Locked = true
		if s := a.prefs.Int(PrefLockoutSeconds); s > 0 {
			rec.LockedUntil = now.Add(time.Duration(s) * time.Second)
		}
		entry = a.entry("user.locked", Actor{Realm: "system", Name: "vcm"}, u.name, map[string]string{
			"failures": strconv.Itoa(rec.Failures), "until": stamp(rec.LockedUntil), "address": address})
		a.log.Warn("account locked after failed sign-ins", "user", u.name, "failures", rec.Failures, "address", address)
	}
	if _, err := a.put(ctx, u.name, &rec, u, entry); err != nil {
		// A store that cannot be written must not make guessing free.
		u.publish(&rec)
		a.log.Warn("a failed sign-in could not be written down", "user", u.name, "error", err)
	}
}

// signedIn clears the failures and notes the time, writing only when needed.
func (a *Accounts) signedIn(ctx context.Context, u *account) {
	due := func(rec *record) bool {
		return rec.Failures > 0 || rec.Locked || a.now().Sub(rec.LastSignIn) >= signInNote
	}
	if !due(u.rec.Load()) {
		return
	}
	a.changes.Lock()
	defer a.changes.Unlock()
	next := *u.rec.Load()
	if u.gone.Load() || !due(&next) {
		return
	}
	next.Failures, next.Locked, next.LockedUntil, next.LastSignIn = 0, false, time.Time{}, a.now()
	entry := a.entry("user.signin", Actor{Realm: Realm, Name: u.name}, u.name, nil)
	if _, err := a.put(ctx, u.name, &next, u, entry); err != nil {
		// A store over its quota must not lock its operators out.
		u.publish(&next)
		a.log.Warn("a sign-in could not be written down", "user", u.name, "error", err)
	}
}

// Authenticate returns whose access token this is. The error's text is fit for
// the caller and never holds the token.
func (a *Accounts) Authenticate(token string) (Session, error) {
	if token == "" {
		return Session{}, errkind.Errorf(errkind.Unauthorised, "missing")
	}
	if len(token) > 256 || strings.ContainsFunc(token, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return Session{}, errkind.Errorf(errkind.Unauthorised, "malformed")
	}
	now := a.now()
	ses, ok := a.sessions.find(token, now)
	if !ok {
		return Session{}, errkind.Errorf(errkind.Unauthorised, "unknown or expired")
	}
	rec := ses.user.rec.Load()
	expired := !rec.AccountExpires.IsZero() && !now.Before(rec.AccountExpires)
	if ses.user.gone.Load() || rec.Disabled || expired {
		return Session{}, errkind.Errorf(errkind.Unauthorised, "account disabled or expired")
	}
	return Session{Username: ses.user.name, Permissions: rec.may, Expires: time.Unix(ses.expires, 0)}, nil
}
