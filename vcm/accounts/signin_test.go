package accounts_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/vcm/accounts"
)

// TestSession: an access token dies at its absolute end, whatever it was used for.
func TestSession(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("api", accounts.RoleAPI, accounts.RoleIssueCredit)
	token, err := r.signIn("api", good, "a")
	if err != nil {
		t.Fatal(err)
	}
	if other, err := r.signIn("api", good, "a"); err != nil || other == token || len(token) < 22 {
		t.Fatalf("two tokens %q %q: %v", token, other, err)
	}
	for range 10 {
		r.clock.Advance(29900 * time.Millisecond)
		ses, err := r.Authenticate(token)
		if err != nil || ses.Username != "api" || !ses.Permissions.Has(accounts.MayIssueCredit) || ses.Permissions.Has(accounts.MayIssueKCT) {
			t.Fatalf("%+v, %v", ses, err)
		}
	}
	r.clock.Advance(time.Second)
	if _, err := r.Authenticate(token); err == nil {
		t.Error("the session outlived its time")
	}
	for _, bad := range []string{"", "x", token + "x", "\x00", string(make([]byte, 1000))} {
		if _, err := r.Authenticate(bad); err == nil {
			t.Errorf("%q is somebody's token", bad)
		}
	}
}

// TestSessionFollowsUser: what a change takes away is gone at once.
func TestSessionFollowsUser(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	yes, no, soon := true, false, epoch.Add(time.Minute)
	r.create("api", accounts.RoleAPI, accounts.RoleIssueAny)
	token, err := r.signIn("api", good, "a")
	if err != nil {
		t.Fatal(err)
	}
	change := func(c accounts.Change) {
		t.Helper()
		if _, err := r.Change(ctx, admin, "api", c); err != nil {
			t.Fatal(err)
		}
	}
	change(accounts.Change{Roles: []string{accounts.RoleAPI}})
	if ses, err := r.Authenticate(token); err != nil || ses.Permissions.Has(accounts.MayIssueAny) {
		t.Errorf("a role that was taken away: %+v, %v", ses, err)
	}
	change(accounts.Change{Disabled: &yes})
	if _, err := r.Authenticate(token); err == nil {
		t.Error("a disabled user's session works")
	}
	if _, err := r.signIn("api", good, "a"); reason(err) != accounts.BadCredentials {
		t.Errorf("a disabled user signs in: %v", err)
	}
	change(accounts.Change{Disabled: &no, AccountExpires: &soon})
	r.clock.Advance(time.Minute)
	if _, err := r.Authenticate(token); err == nil {
		t.Error("an expired account's session works")
	}
	if _, err := r.signIn("api", good, "a"); reason(err) != accounts.BadCredentials {
		t.Errorf("an expired account signs in: %v", err)
	}
	later := epoch.AddDate(3, 0, 0)
	change(accounts.Change{AccountExpires: &later})
	if err := r.SetPassword(ctx, admin, "api", "Other1pw"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Authenticate(token); err == nil {
		t.Error("a session survived a new password")
	}
	r.clock.Set(epoch.AddDate(1, 0, 1))
	if _, err := r.signIn("api", "Other1pw", "a"); reason(err) != accounts.BadCredentials {
		t.Errorf("an expired password signs in: %v", err)
	}
	if err := r.SetPassword(ctx, admin, "api", "Third3xx"); err != nil {
		t.Errorf("an expired password cannot be replaced: %v", err)
	}
	if _, err := r.signIn("api", "Third3xx", "a"); err != nil {
		t.Error(err)
	}
}

// TestLockOut: failures in a row lock the account, also across a restart, and
// not for longer than preferred.
func TestLockOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set(accounts.PrefLockoutThreshold, "3")
	r.create("api", accounts.RoleAPI)
	fail := func() {
		t.Helper()
		if _, err := r.signIn("api", "wrong", "a"); reason(err) != accounts.BadCredentials {
			t.Fatal(err)
		}
	}
	fail()
	fail()
	if _, err := r.signIn("api", good, "a"); err != nil {
		t.Fatalf("two failures locked the account: %v", err)
	}
	if u, err := r.User("api"); err != nil || u.FailedSignIns != 0 {
		t.Errorf("a success did not clear the failures: %+v, %v", u, err)
	}
	fail()
	fail()
	r.reopen()
	fail()
	if e := r.last(); e.Kind != "user.locked" || e.Subject != "api" {
		t.Errorf("audit: %+v", e)
	}
	if _, err := r.signIn("api", good, "a"); reason(err) != accounts.BadCredentials {
		t.Errorf("a locked account signs in: %v", err)
	}
	r.clock.Advance(15 * time.Minute)
	if _, err := r.signIn("api", good, "b"); err != nil {
		t.Errorf("the lock did not end: %v", err)
	}
	r.set(accounts.PrefLockoutSeconds, "0")
	fail()
	fail()
	fail()
	r.clock.Advance(1000 * time.Hour)
	if _, err := r.signIn("api", good, "b"); err == nil {
		t.Error("a lock without end ended")
	}
	if _, err := r.Change(context.Background(), admin, "api", accounts.Change{Unlock: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.signIn("api", good, "b"); err != nil {
		t.Errorf("unlocked: %v", err)
	}
}

// TestLockOutWithoutStore: guessing is not free while nothing can be written,
// and who knows the password can still sign in.
func TestLockOutWithoutStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.set(accounts.PrefLockoutThreshold, "3")
	r.create("api", accounts.RoleAPI)
	r.refuse = errors.New("read-only") // what an audited write gets
	if _, err := r.signIn("api", good, "a"); err != nil {
		t.Errorf("a store that cannot be written locks users out: %v", err)
	}
	for range 3 {
		if _, err := r.signIn("api", "wrong", "a"); reason(err) != accounts.BadCredentials {
			t.Fatal(err)
		}
	}
	if _, err := r.signIn("api", good, "a"); reason(err) != accounts.BadCredentials {
		t.Errorf("three failures did not lock the account: %v", err)
	}
}

// TestGuessing: of many guesses at once only few are evaluated before the
// account is locked, and an address that only fails has to wait.
func TestGuessing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("api", accounts.RoleAPI)
	var wg sync.WaitGroup
	var open atomic.Int64
	for i := range 200 {
		wg.Go(func() {
			if _, err := r.signIn("api", fmt.Sprintf("Guess%d", i), fmt.Sprint("address", i)); err == nil {
				open.Add(1)
			}
		})
	}
	wg.Wait()
	u, err := r.User("api")
	if err != nil || !u.Locked || u.FailedSignIns > 20 || open.Load() != 0 {
		t.Errorf("%d guesses were evaluated, %d succeeded: %+v, %v", u.FailedSignIns, open.Load(), u, err)
	}

	r.create("other", accounts.RoleAPI)
	for i := range 60 {
		if _, err := r.signIn(fmt.Sprintf("nobody%d", i), good, "attacker"); reason(err) != accounts.UnknownUser {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	if _, err := r.signIn("other", good, "attacker"); reason(err) != accounts.BadCredentials {
		t.Errorf("an address beyond its failures may go on: %v", err)
	}
	if _, err := r.signIn("other", good, "neighbour"); err != nil {
		t.Errorf("another address: %v", err)
	}
	r.clock.Advance(time.Minute)
	if _, err := r.signIn("other", good, "attacker"); err != nil {
		t.Errorf("after a minute: %v", err)
	}
	r.set(accounts.PrefHideUnknownUsers, "True")
	if _, err := r.signIn("nobody", good, "c"); reason(err) != accounts.BadCredentials {
		t.Errorf("unknown users are not hidden: %v", err)
	}
}

// TestRealmFirst: the realm is checked before the user.
func TestRealmFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.SignIn(context.Background(), accounts.SignIn{Realm: "ldap", Username: "nobody"})
	if reason(err) != accounts.UnknownRealm {
		t.Error(err)
	}
}
