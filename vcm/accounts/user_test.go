package accounts_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
)

// TestFirstPassword: nobody can sign in before the tenant sets a password.
func TestFirstPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	users := r.Users()
	if len(users) != 1 || users[0].Username != "admin" || users[0].PasswordSet {
		t.Fatalf("a new VCM has users %+v", users)
	}
	for _, p := range []string{"", "admin", "password", good} {
		if _, err := r.signIn("admin", p, "a"); reason(err) != accounts.BadCredentials {
			t.Errorf("password %q: %v", p, err)
		}
	}
	if err := r.SetPassword(context.Background(), admin, "admin", good); err != nil {
		t.Fatal(err)
	}
	u, err := r.User("admin")
	if err != nil || !u.PasswordSet || !u.AccountExpires.Equal(epoch.AddDate(0, 0, 365)) || !u.PasswordExpires.Equal(epoch.AddDate(0, 0, 365)) {
		t.Errorf("%+v, %v", u, err)
	}
	_, err = r.SignIn(context.Background(), accounts.SignIn{
		Realm: "local", Username: "admin", Password: good, Address: "a", Require: accounts.MayAdminister,
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := r.signIn("admin", good, "a"); reason(err) != accounts.NoPermission {
		t.Errorf("admin on the token service: %v", err)
	}
}

func reason(err error) accounts.SignInReason {
	var e *accounts.SignInError
	if errors.As(err, &e) {
		return e.Reason
	}
	return 0
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("taken", accounts.RoleAPI)
	for name, c := range map[string]struct {
		user accounts.NewUser
		kind errkind.Kind
		text string
	}{
		"empty name":      {accounts.NewUser{Roles: []string{"admin"}}, errkind.Invalid, "user name"},
		"long name":       {accounts.NewUser{Username: strings.Repeat("x", 41), Roles: []string{"admin"}}, errkind.Invalid, "user name"},
		"name with blank": {accounts.NewUser{Username: "a b", Roles: []string{"admin"}}, errkind.Invalid, "user name"},
		"taken":           {accounts.NewUser{Username: "taken", Roles: []string{"admin"}}, errkind.Refused, "exists already"},
		"no role":         {accounts.NewUser{Username: "x"}, errkind.Invalid, "at least one role"},
		"unknown role":    {accounts.NewUser{Username: "x", Roles: []string{"root"}}, errkind.Invalid, "unknown role"},
		"none with other": {accounts.NewUser{Username: "x", Roles: []string{"none", "admin"}}, errkind.Invalid, "no other role"},
		"past expiry":     {accounts.NewUser{Username: "x", Roles: []string{"admin"}, AccountExpires: epoch}, errkind.Invalid, "in the past"},
		"short":           {accounts.NewUser{Username: "x", Roles: []string{"admin"}, Password: "Pass0"}, errkind.Invalid, "too weak"},
		"no upper":        {accounts.NewUser{Username: "x", Roles: []string{"admin"}, Password: "passw0rd"}, errkind.Invalid, "too weak"},
		"no lower":        {accounts.NewUser{Username: "x", Roles: []string{"admin"}, Password: "PASSW0RD"}, errkind.Invalid, "too weak"},
		"no digit":        {accounts.NewUser{Username: "x", Roles: []string{"admin"}, Password: "Password"}, errkind.Invalid, "too weak"},
		"not printable":   {accounts.NewUser{Username: "x", Roles: []string{"admin"}, Password: "Passw0rdé"}, errkind.Invalid, "printable"},
		"too long":        {accounts.NewUser{Username: "x", Roles: []string{"admin"}, Password: strings.Repeat("Aa0", 19)}, errkind.Invalid, "longer than 55"},
		"the name":        {accounts.NewUser{Username: "Passw0rd", Roles: []string{"admin"}, Password: "pASSW0RD"}, errkind.Invalid, "must not be"},
	} {
		_, err := r.Create(context.Background(), admin, c.user)
		if !errkind.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, expected %s %q", name, err, c.kind, c.text)
		}
	}
	if n := len(r.Users()); n != 2 {
		t.Errorf("%d users after refusals", n)
	}
}

// TestChangesAreAudited: each change leaves what was before and after, and no
// secret; a change that cannot be audited does not happen.
func TestChangesAreAudited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	r.create("api", accounts.RoleAPI)
	if e := r.last(); e.Kind != "user.create" || e.Subject != "api" || e.Actor != "ssh:test" || e.Detail["roles"] != "ptoken-api" || e.Detail["password"] != "set" {
		t.Errorf("create: %+v", e)
	}
	yes, later := true, epoch.AddDate(2, 0, 0)
	if _, err := r.Change(ctx, admin, "api", accounts.Change{Roles: []string{"ptoken-api", "ptoken-issue-any"}, Disabled: &yes, AccountExpires: &later}); err != nil {
		t.Fatal(err)
	}
	if e := r.last(); e.Kind != "user.change" || e.Detail["roles.before"] != "ptoken-api" || e.Detail["roles.after"] != "ptoken-api,ptoken-issue-any" ||
		e.Detail["disabled.before"] != "false" || e.Detail["disabled.after"] != "true" || e.Detail["accountExpires.after"] != "2028-03-01T10:00:00Z" {
		t.Errorf("change: %+v", e)
	}
	n := len(r.audits)
	if _, err := r.Change(ctx, admin, "api", accounts.Change{Disabled: &yes}); err != nil || len(r.audits) != n {
		t.Errorf("a change of nothing was audited: %v", err)
	}
	if err := r.SetPassword(ctx, admin, "api", "Other1pw"); err != nil {
		t.Fatal(err)
	}
	r.set(accounts.PrefSessionTimeout, "600")
	if e := r.last(); e.Kind != "preference.set" || e.Subject != "ptoken.sessionTimeoutSec" || e.Detail["before"] != "300" || e.Detail["after"] != "600" {
		t.Errorf("preference: %+v", e)
	}
	if err := r.Delete(ctx, admin, "api"); err != nil {
		t.Fatal(err)
	}
	if e := r.last(); e.Kind != "user.delete" || e.Subject != "api" {
		t.Errorf("delete: %+v", e)
	}
	all, err := json.Marshal(r.audits)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{good, "Other1pw", "argon2id"} {
		if strings.Contains(string(all), secret) {
			t.Errorf("the audit log holds %q", secret)
		}
	}

	r.refuse = errors.New("log full")
	if _, err := r.Create(ctx, admin, accounts.NewUser{Username: "ghost", Roles: []string{"admin"}}); err == nil {
		t.Error("a user was created without an audit entry")
	}
	if _, err := r.Preferences().Set(ctx, admin, ^accounts.Permission(0), accounts.PrefSessionTimeout, "700"); err == nil || r.Preferences().Int(accounts.PrefSessionTimeout) != 600 {
		t.Error("a preference changed without an audit entry")
	}
	r.refuse = nil
	r.reopen()
	if _, err := r.User("ghost"); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("after a restart: %v", err)
	}
	if v := r.Preferences().Int(accounts.PrefSessionTimeout); v != 600 {
		t.Errorf("after a restart the preference is %d", v)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	if err := r.Delete(ctx, admin, "admin"); !errkind.Is(err, errkind.Refused) {
		t.Errorf("the built-in user: %v", err)
	}
	if err := r.Delete(ctx, admin, "nobody"); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("an unknown user: %v", err)
	}
	r.create("api", accounts.RoleAPI)
	token, err := r.signIn("api", good, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, admin, "api"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Authenticate(token); err == nil {
		t.Error("a deleted user's session is open")
	}
	if _, err := r.signIn("api", good, "a"); reason(err) != accounts.UnknownUser {
		t.Errorf("a deleted user signs in: %v", err)
	}
	r.create("api", accounts.RoleAPI)
	if _, err := r.Authenticate(token); err == nil {
		t.Error("the session of a deleted user became a new user's")
	}
}

// TestPasswordHistory refuses former passwords as far back as preferred.
func TestPasswordHistory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	r.set(accounts.PrefPasswordHistory, "2")
	r.create("u", accounts.RoleAPI)
	for _, c := range []struct {
		password string
		refused  bool
	}{{good, true}, {"Second2x", false}, {good, true}, {"Third3xx", false}, {good, false}, {"Third3xx", true}} {
		if err := r.SetPassword(ctx, admin, "u", c.password); (err != nil) != c.refused {
			t.Errorf("password %s: %v", c.password, err)
		}
	}
}

// TestPreferences: definitions are sound, values stay in their range.
func TestPreferences(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	p := r.Preferences()
	list := p.List("")
	if !slices.IsSortedFunc(list, func(a, b accounts.Preference) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the list is not sorted")
	}
	for _, pref := range list {
		if pref.Value != pref.Default || pref.Description == "" || pref.Range() == "" || pref.ChangeableBy == "" {
			t.Errorf("%+v", pref)
		}
		if got, err := p.Set(ctx, admin, ^accounts.Permission(0), pref.Name, pref.Default); err != nil || got.Value != pref.Default {
			t.Errorf("%s refuses its default %q: %v", pref.Name, pref.Default, err)
		}
		if _, err := p.Set(ctx, admin, ^accounts.Permission(0), pref.Name, "no such value"); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", pref.Name, err)
		}
		if pref.Type == accounts.TypeInt {
			for _, v := range []string{"-1", "99999999999999999999", "1.5", ""} {
				if _, err := p.Set(ctx, admin, ^accounts.Permission(0), pref.Name, v); !errkind.Is(err, errkind.Invalid) {
					t.Errorf("%s = %q: %v", pref.Name, v, err)
				}
			}
		}
	}
	if n := len(p.List("ptoken.")); n == 0 || n == len(list) {
		t.Errorf("%d of %d preferences start with ptoken.", n, len(list))
	}
	if _, err := p.Set(ctx, admin, ^accounts.Permission(0), "ptoken.nothing", "1"); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("unknown preference: %v", err)
	}
	for form, want := range map[string]string{"true": "True", "1": "True", "FALSE": "False", "0": "False"} {
		if got, err := p.Set(ctx, admin, ^accounts.Permission(0), accounts.PrefAllowUnapprovedKMC, form); err != nil || got.Value != want {
			t.Errorf("%q became %q: %v", form, got.Value, err)
		}
	}
	for _, c := range []struct {
		may     accounts.Permission
		name    string
		allowed bool
	}{
		{accounts.MayAdminister, accounts.PrefSessionTimeout, true}, {accounts.MayAdministerTokens, accounts.PrefSessionTimeout, true},
		{accounts.MayOperateTokens, accounts.PrefSessionTimeout, false}, {accounts.MayAdministerTokens, accounts.PrefPasswordMinLength, false},
		{accounts.MayAdminister, accounts.PrefPasswordMinLength, true},
	} {
		if _, err := p.Set(ctx, admin, c.may, c.name, "60"); errkind.Is(err, errkind.Unauthorised) == c.allowed {
			t.Errorf("%s with %s: %v", c.name, c.may, err)
		}
	}
}

// TestRoles: every role has its own permission and name.
func TestRoles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, role := range accounts.Roles() {
		if _, err := r.Create(context.Background(), admin, accounts.NewUser{Username: "u-" + role.Name, Roles: []string{role.Name}}); err != nil || role.About == "" {
			t.Errorf("%+v: %v", role, err)
		}
	}
	if u, err := r.User("u-none"); err != nil || !u.Disabled {
		t.Errorf("role none: %+v, %v", u, err)
	}
	if got := (accounts.MayIssueEng | accounts.MayIssueProprietary).String(); got != "ptoken.issue.eng+ptoken.issue.proprietary" {
		t.Errorf("permissions print as %q", got)
	}
}
