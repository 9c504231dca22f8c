package isolation

import (
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
)

// pair is a client of each VCM's token service.
func (t *replay) pair(ctx context.Context, fn func(a, b *vending.Client) error) error {
	a, err := t.a.Client(ctx)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := t.b.Client(ctx)
	if err != nil {
		return err
	}
	defer b.Close()
	return fn(a, b)
}

// sessions are A's session and a result that it has fetched.
func (t *replay) sessions(ctx context.Context) error {
	accounts, err := t.Accounts(supplyGroup.SGC, 1, 1)
	if err != nil {
		return err
	}
	return t.pair(ctx, func(a, b *vending.Client) error {
		status := func(c *vending.Client, session string) error {
			_, err := c.API.GetStatus(ctx, vending.MessageID(), session)
			return err
		}
		r := replayed{what: "a session", before: status(a, a.Token), theirs: text(status(b, a.Token)), none: text(status(b, strings.Repeat("A", len(a.Token))))}
		if r.after = status(a, a.Token); r.after == nil {
			r.after = status(b, b.Token)
		}
		t.record(r)

		id := vending.MessageID()
		if _, err := a.API.IssueCreditToken(ctx, id, a.Token, accounts[0].Config, 0, 10, 0, 0); err != nil {
			return err
		}
		fetch := func(c *vending.Client, id string) error {
			_, err := c.API.FetchTokenResult_(ctx, vending.MessageID(), c.Token, id)
			return err
		}
		r = replayed{what: "a result, by its message", before: fetch(a, id), theirs: text(fetch(b, id)), none: text(fetch(b, uuid.NewString()))}
		r.after = fetch(a, id)
		t.record(r)
		return nil
	})
}

// users is a user of A's with his right password.
func (t *replay) users(ctx context.Context) error {
	if err := t.as("a"); err != nil {
		return err
	}
	const user, password = "only-of-a", "Correct-horse-9"
	secret := t.Mail("only-of-a.password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	if _, err := t.Run(ctx, rig.Tenant, "ptokenadmin", "user", "create", "--role", "ptoken-api", "--password-file", secret, user); err != nil {
		return err
	}
	return t.pair(ctx, func(a, b *vending.Client) error {
		r := replayed{what: "a user and his password", before: a.SignIn(ctx, user, password),
			theirs: text(b.SignIn(ctx, user, password)), none: text(b.SignIn(ctx, "of-nobody", password))}
		r.after = a.SignIn(ctx, user, password)
		t.record(r, user, "of-nobody")
		return nil
	})
}

// tokens is a token of a supply group of which B has no key, and the group itself.
func (t *replay) tokens(ctx context.Context) error {
	accounts, err := t.Accounts(groupOfA, 1, 1)
	if err != nil {
		return err
	}
	meter := accounts[0].Config
	none, err := strconv.Atoi(groupOfNone)
	if err != nil {
		return err
	}
	foreign := *meter
	foreign.Sgc = int32(none)
	return t.pair(ctx, func(a, b *vending.Client) error {
		issued, err := a.API.IssueCreditToken(ctx, vending.MessageID(), a.Token, meter, 0, 10, 0, 0)
		if err != nil {
			return err
		}
		verify := func(c *vending.Client) error {
			_, err := c.API.VerifyToken(ctx, vending.MessageID(), c.Token, meter, issued[0].TokenDec)
			return err
		}
		_, unknown := b.API.VerifyToken(ctx, vending.MessageID(), b.Token, &foreign, issued[0].TokenDec)
		r := replayed{what: "a token", before: verify(a), theirs: text(verify(b)), none: text(unknown)}
		r.after = verify(a)
		t.record(r, groupOfA, groupOfNone)

		_, theirs := b.API.IssueCreditToken(ctx, vending.MessageID(), b.Token, meter, 0, 10, 0, 0)
		_, unknown = b.API.IssueCreditToken(ctx, vending.MessageID(), b.Token, &foreign, 0, 10, 0, 0)
		t.record(replayed{what: "a supply group", theirs: text(theirs), none: text(unknown), after: t.vends(ctx)}, groupOfA, groupOfNone)
		return nil
	})
}
