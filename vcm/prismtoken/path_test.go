package prismtoken_test

import (
	"context"
	"testing"

	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// TestPath is what a vending system does in a day, over TLS.
func TestPath(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.load(group(123456, 1), group(654321, 1))
	r.user("vending", accounts.RoleIssueAny)
	ctx, c := context.Background(), r.client()

	if got, err := c.Ping(ctx, 0, "Hello, world!"); err != nil || got != "Hello, world!" {
		t.Fatalf("ping: %q, %v", got, err)
	}
	token := r.signIn(c, "vending")
	for _, ea := range []int16{7, 11} {
		m := newMeter("12345678903", ea, 123456)
		m.Drn = "00000000000"
		tokens, err := c.IssueCreditToken(ctx, "credit", token, m, 0, 102, 0, 0)
		if err != nil {
			t.Fatalf("EA%02d: %v", ea, err)
		}
		if len(tokens) != 1 {
			t.Fatalf("EA%02d: %d tokens, expected 1", ea, len(tokens))
		}
		got := tokens[0]
		if got.Description != "Credit:Electricity" || got.StsUnitName != "hWh" || got.ScaledAmount != "10.2" || got.ScaledUnitName != "kWh" ||
			got.TransferAmount != 102 || got.Pan != "600727000000000009" || got.IsReservedTid || got.NewConfig_ != nil {
			t.Errorf("EA%02d: %+v", ea, got)
		}
		v, err := c.VerifyToken(ctx, "verify", token, m, got.TokenDec)
		if err != nil || v.ValidationResult_ != "EVerify.Ok" || v.Token == nil || v.MeterTestToken != nil {
			t.Fatalf("EA%02d: verify: %+v, %v", ea, v, err)
		}
		if !v.Token.Equals(got) {
			t.Errorf("EA%02d: verified %+v\nissued %+v", ea, v.Token, got)
		}
		fetched, err := c.FetchTokenResult_(ctx, "fetch", token, "credit")
		if err != nil || len(fetched) != 1 || !fetched[0].Equals(got) {
			t.Errorf("EA%02d: fetched %+v, %v", ea, fetched, err)
		}
		to := &prismtoken1.MeterConfigAmendment{ToSgc: 654321, ToKrn: 1, ToTi: 2}
		set, err := c.IssueKeyChangeTokens(ctx, "kct", token, m, to)
		if err != nil {
			t.Fatalf("EA%02d: key change: %v", ea, err)
		}
		if want := map[int16]int{7: 2, 11: 4}[ea]; len(set) != want {
			t.Errorf("EA%02d: %d key change tokens, expected %d", ea, len(set), want)
		}
		for i, k := range set {
			if (k.NewConfig_ != nil) != (i == 0) || k.Sgc != 123456 || k.Tid != 0 || k.TokenClass != 2 {
				t.Errorf("EA%02d: key change token %d: %+v", ea, i, k)
			}
		}
		if a := set[0].NewConfig_; a.ToSgc != 654321 || a.ToTi != 2 || a.IdRecord != "60072700000000000900000"+map[int16]string{7: "207", 11: "211"}[ea]+"654321021" {
			t.Errorf("EA%02d: advice %+v", ea, a)
		}
	}
	st, err := c.GetStatus(ctx, "status", token)
	if err != nil || len(st) != 1 || st[0].Info["ModuleId"] != moduleID {
		t.Fatalf("status: %+v, %v", st, err)
	}
	t.Log(st[0].Alerts)

	// The token lives on other connections too, and after a restart of the
	// service the result is still there for a new session.
	if _, err := r.client().GetStatus(ctx, "status", token); err != nil {
		t.Errorf("token on another connection: %v", err)
	}
	r.reopen()
	c = r.client()
	if got, err := c.FetchTokenResult_(ctx, "fetch", r.signIn(c, "vending"), "kct"); err != nil || len(got) != 4 {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
}
