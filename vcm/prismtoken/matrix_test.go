package prismtoken_test

import (
	"context"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/conformance/matrix"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
)

// TestMatrix makes each method fail in each way it can.
func TestMatrix(t *testing.T) {
	t.Parallel()
	for name, testMode := range map[string]bool{"vending": false, "CTS mode": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) { r.testMode = testMode })
			r.load(group(123456, 1), group(654321, 1),
				group(222222, 1, func(g *kmc.Group) { g.SBM, g.ULM = 0x0001, 1000 }),
				group(991993, 1, func(g *kmc.Group) { g.KTC, g.DKG = "VDDK", 4 }))
			r.user(matrix.UserName, accounts.RoleIssueAny, accounts.RoleTokenOperator)
			r.user("bare")
			r.user("other", accounts.RoleIssueAny)
			ctx, c := context.Background(), r.client()
			must(r.accounts.Create(ctx, admin, accounts.NewUser{Username: matrix.OperatorName, Roles: []string{accounts.RoleTokenOperator}, Password: password}))(t)
			expired := r.signIn(c, matrix.UserName)
			r.clock.Advance(300 * time.Second)
			other := newRig(t)
			other.user(matrix.UserName, accounts.RoleIssueAny)
			issued := must(c.IssueCreditToken(ctx, matrix.OthersMessage, r.signIn(c, "other"), matrix.ValidMeter(), 0, 1, 0, 0))(t)
			// Every wrong password here is meant; none may lock the user.
			must(r.accounts.Preferences().Set(ctx, admin, ^accounts.Permission(0), accounts.PrefLockoutThreshold, "1000"))(t)
			must(r.accounts.Preferences().Set(ctx, admin, ^accounts.Permission(0), accounts.PrefAddressFailures, "1000"))(t)
			calls, bad := matrix.Run(ctx, &matrix.Target{
				Call: func(ctx context.Context, method string, args, result thrift.TStruct) error {
					_, err := c.Client_().Call(ctx, method, args, result)
					return err
				},
				User: r.signIn(c, matrix.UserName), Bare: r.signIn(c, "bare"), Expired: expired, Foreign: other.signIn(other.client(), matrix.UserName),
				Token: issued[0].TokenDec, Password: password, TestMode: testMode,
			})
			for _, what := range bad {
				t.Error(what)
			}
			t.Logf("%d calls", calls)
		})
	}
}
