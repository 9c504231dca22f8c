package tokenadmin

import (
	"context"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
)

func wireUser(u accounts.User) *prismadmin.User {
	return &prismadmin.User{
		Username: u.Username, Roles: u.Roles, PasswordSet: u.PasswordSet, Disabled: u.Disabled, Locked: u.Locked,
		AccountExpires: unix(u.AccountExpires), PasswordExpires: unix(u.PasswordExpires), LastSignIn: unix(u.LastSignIn),
		FailedSignIns: int32(u.FailedSignIns),
	}
}

// UserList lists every user.
func (h *handler) UserList(context.Context) ([]*prismadmin.User, error) {
	out := []*prismadmin.User{}
	for _, u := range h.Accounts.Users() {
		out = append(out, wireUser(u))
	}
	return out, nil
}

// UserShow shows one user.
func (h *handler) UserShow(_ context.Context, username string) (*prismadmin.User, error) {
	u, err := h.Accounts.User(username)
	if err != nil {
		return nil, err
	}
	return wireUser(u), nil
}

// UserCreate makes a user. Without an expiry the account lives for the
// preferred time, without a password it cannot sign in yet.
func (h *handler) UserCreate(ctx context.Context, username string, roles []string, password string, accountExpires int64) (*prismadmin.User, error) {
	u, err := h.Accounts.Create(ctx, h.actor, accounts.NewUser{
		Username: username, Roles: roles, Password: password, AccountExpires: fromUnix(accountExpires),
	})
	if err != nil {
		return nil, err
	}
	return wireUser(u), nil
}

// UserChange changes roles, expiry or state.
func (h *handler) UserChange(ctx context.Context, username string, c *prismadmin.UserChange) (*prismadmin.User, error) {
	change := accounts.Change{Roles: c.Roles, Disabled: c.Disabled, Unlock: c.Unlock != nil && *c.Unlock}
	if c.AccountExpires != nil {
		t := fromUnix(*c.AccountExpires)
		change.AccountExpires = &t
	}
	u, err := h.Accounts.Change(ctx, h.actor, username, change)
	if err != nil {
		return nil, err
	}
	return wireUser(u), nil
}

// UserSetPassword sets a password.
func (h *handler) UserSetPassword(ctx context.Context, username, password string) error {
	return h.Accounts.SetPassword(ctx, h.actor, username, password)
}

// UserDelete removes a user and the results that only that user could fetch.
func (h *handler) UserDelete(ctx context.Context, username string) error {
	if err := h.Accounts.Delete(ctx, h.actor, username); err != nil {
		return err
	}
	return h.POS.Forget(ctx, pos.Caller{Realm: accounts.Realm, Username: username})
}
