package crash_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// away is what a client is told while the unit is away.
const away = "Security Module error '01': STS API error DEVICE_FAILURE"

// TestUnitAway: while the unit does not answer, and after it was killed, every
// method answers as it does on a module that fails, or as always where it needs
// none. Once the unit is back, vending goes on, in the same process and over the same
// connection.
func TestUnitAway(t *testing.T) {
	t.Parallel()
	r, v, accounts := oneVCM(t, "away", 1)
	m, unit := accounts[0].Config, r.Daemon(hsmd)
	was := only(t, r, v.UUID)
	c, err := v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := syscall.Kill(unit.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := func() { _ = syscall.Kill(unit.PID(), syscall.SIGCONT) }
	defer resume()
	// What was leased before may still be used up, a token at a time.
	for deadline := time.Now().Add(recovery); ; {
		if _, err = c.API.IssueCreditToken(t.Context(), vending.MessageID(), c.Token, m, 0, 1, 0, 0); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("tokens are issued without a unit")
		}
	}
	for _, call := range everyCall(t.Context(), c, m) {
		began := time.Now()
		err := call.make()
		took := time.Since(began)
		if got := said(err); got != call.away {
			t.Errorf("%s answered %q, not %q", call.method, got, call.away)
		}
		if took > 10*time.Second {
			t.Errorf("%s took %s to answer", call.method, took)
		}
	}
	resume()
	again(t, v, m)

	r.Kill(unit)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, err := c.API.IssueCreditToken(t.Context(), vending.MessageID(), c.Token, m, 0, 1, 0, 0)
		if code := vending.ErrorCode(err); code != "" && said(err) != away {
			t.Errorf("after the unit was killed: %s", said(err))
		} else if code == "" && err != nil {
			t.Fatalf("after the unit was killed nobody answers: %v", err)
		}
	}
	if err := r.Restart(unit); err != nil {
		t.Fatal(err)
	}
	again(t, v, m)
	if _, err := c.API.IssueCreditToken(t.Context(), vending.MessageID(), c.Token, m, 0, 1, 0, 0); err != nil {
		t.Errorf("over the connection from before: %v", err)
	}
	if now := only(t, r, v.UUID); now != was {
		t.Errorf("the VCM's process is %d, was %d", now.PID, was.PID)
	}
}

// TestUnitGone: a VCM does not wait for its unit for ever, and what it has in memory
// goes with it. It comes back with the unit.
func TestUnitGone(t *testing.T) {
	t.Parallel()
	r, v, accounts := oneVCM(t, "gone", 1)
	was, unit := only(t, r, v.UUID), r.Daemon(hsmd)
	r.Kill(unit)
	const promised, patience = 30 * time.Second, 45 * time.Second
	began := time.Now()
	for was.Alive() && time.Since(began) < patience {
		time.Sleep(50 * time.Millisecond)
	}
	if waited := time.Since(began); was.Alive() || waited < promised-time.Second {
		t.Errorf("without a unit the VCM was there for %s, not %s", waited.Round(time.Millisecond), promised)
	}
	if err := r.Restart(unit); err != nil {
		t.Fatal(err)
	}
	again(t, v, accounts[0].Config)
}

// oneVCM is a platform with one VCM that vends to so many accounts.
func oneVCM(t *testing.T, name string, accounts int) (*rig.Rig, *rig.VCM, []rig.Account) {
	t.Helper()
	r, v := binaries.Full(t, rig.Plan{
		Name: name, Request: []string{"--autostart"}, Groups: []rig.SupplyGroup{{SGC: openGroup, DKG: "04", Name: "Open"}},
	})
	all, err := r.Accounts(openGroup, 1, accounts)
	if err != nil {
		t.Fatal(err)
	}
	return r, v, all
}

// again waits until a client that comes now gets a token.
func again(t *testing.T, v *rig.VCM, m *prismtoken1.MeterConfigIn) {
	t.Helper()
	var err error
	for end := time.Now().Add(recovery); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var c *vending.Client
		if c, err = v.Client(t.Context()); err != nil {
			continue
		}
		_, err = c.API.IssueCreditToken(t.Context(), vending.MessageID(), c.Token, m, 0, 1, 0, 0)
		_ = c.Close()
		if err == nil {
			return
		}
	}
	t.Fatalf("no token within %s of the unit's return: %v", recovery, err)
}

// said is the text of a refusal, "" for success.
func said(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := err.(*prismtoken1.ApiException); ok {
		return e.EMsgEn
	}
	return fmt.Sprintf("no refusal: %v", err)
}

// call is one call of each method, and what it answers while the unit is away.
type call struct {
	method string
	away   string
	make   func() error
}

func everyCall(ctx context.Context, c *vending.Client, m *prismtoken1.MeterConfigIn) []call {
	id := vending.MessageID
	to := &prismtoken1.MeterConfigAmendment{ToSgc: m.Sgc, ToKrn: m.Krn, ToTi: m.Ti + 1}
	return []call{
		{"ping", "", func() error { _, err := c.API.Ping(ctx, 0, "x"); return err }},
		{"getStatus", "", func() error { _, err := c.API.GetStatus(ctx, id(), c.Token); return err }},
		{"parseIdRecord", "", func() error {
			_, err := c.API.ParseIdRecord(ctx, id(), c.Token, "00000260060135803400000207999907012")
			return err
		}},
		{"issueCreditToken", away, func() error {
			_, err := c.API.IssueCreditToken(ctx, id(), c.Token, m, 0, 1, 0, 0)
			return err
		}},
		{"issueMseToken", away, func() error { _, err := c.API.IssueMseToken(ctx, id(), c.Token, m, 0, 1, 0, 0); return err }},
		{"issueSetControlToken", away, func() error {
			_, err := c.API.IssueSetControlToken(ctx, id(), c.Token, m, true, 1, 1, 0, 0)
			return err
		}},
		{"issueMeterTestToken", away, func() error { _, err := c.API.IssueMeterTestToken(ctx, id(), c.Token, 0, 0, 0); return err }},
		{"issueKeyChangeTokens", away, func() error { _, err := c.API.IssueKeyChangeTokens(ctx, id(), c.Token, m, to); return err }},
		{"verifyToken", "Parameter 'tokenDec' out of range: got 'x', expected 20 decimal digits of a token", func() error {
			_, err := c.API.VerifyToken(ctx, id(), c.Token, m, "x")
			return err
		}},
		{"fetchTokenResult", "The requested entry was not found in the cache", func() error {
			_, err := c.API.FetchTokenResult_(ctx, id(), c.Token, "never")
			return err
		}},
	}
}
