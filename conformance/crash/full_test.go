package crash_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// TestFullDisk vends until the disk quota is used up: the VCM refuses to issue and
// raises its alarm, also after a crash, answers what needs no disk, and issues again
// once its log is exported and expired.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	r, v, accounts := oneVCM(t, "full", 50)
	server, err := v.Server()
	if err != nil {
		t.Fatal(err)
	}
	password, err := v.Password()
	if err != nil {
		t.Fatal(err)
	}
	var meters []*prismtoken1.MeterConfigIn
	for _, a := range accounts {
		meters = append(meters, a.Config)
	}
	var calls []vending.Call
	full := errors.New("full")
	report, err := vending.Load{
		Server: server, User: v.User, Password: password, Meters: meters, Amount: 1, Clients: 16, Duration: 3 * time.Minute, OneSession: true,
		Record: func(c vending.Call) error {
			calls = append(calls, c)
			if c.Code != "" && c.Code != vending.Lost {
				return full
			}
			return nil
		},
	}.Run(t.Context())
	if !errors.Is(err, full) {
		t.Fatalf("%d tokens did not fill the disk: %v", report.Tokens, err)
	}
	refused := slices.IndexFunc(calls, func(c vending.Call) bool { return c.Code != "" && c.Code != vending.Lost })
	if c := calls[refused]; !strings.Contains(c.Error, "ESm: Security Module error '35': STS API error VENDING_INHIBITED") {
		t.Fatalf("the disk is full after %d tokens: %s", report.Tokens, c.Error)
	}

	newest := -1 // call that was answered with a token
	for i, c := range calls {
		if len(c.Tokens) > 0 {
			newest = i
		}
	}
	// As it is, and as it comes back from a crash.
	for _, when := range []string{"at the limit", "after a crash"} {
		if when == "after a crash" {
			(&killer{t: t, r: r}).killVCM()
		}
		c := comesBack(t, v)
		_, err := c.API.IssueCreditToken(t.Context(), "one-more", c.Token, meters[0], 0, 1, 0, 0)
		if !strings.Contains(said(err), "VENDING_INHIBITED") {
			t.Errorf("%s a vend is answered %q", when, said(err))
		}
		if !readOnly(t, c) {
			t.Errorf("%s there is no alarm", when)
		}
		want := calls[newest]
		if got, err := c.API.FetchTokenResult_(t.Context(), "fetch", c.Token, want.MessageID); err != nil || len(got) != 1 || !got[0].Equals(want.Tokens[0]) {
			t.Errorf("%s the newest result is %v, %v", when, got, err)
		}
		_ = c.Close()
	}

	log := &auditor{r: r, v: v}
	if err := log.export(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if len(log.records) < report.Tokens {
		t.Errorf("%d entries in the log for %d tokens", len(log.records), report.Tokens)
	}
	c := comesBack(t, v)
	defer func() { _ = c.Close() }()
	if _, err := c.API.IssueCreditToken(t.Context(), "again", c.Token, meters[0], 0, 1, 0, 0); err != nil {
		t.Errorf("with room again a vend is answered %v", err)
	}
	if readOnly(t, c) {
		t.Error("the alarm stays")
	}
	t.Logf("%d tokens filled the disk", report.Tokens)
}

// comesBack waits until a client can sign in.
func comesBack(t *testing.T, v *rig.VCM) *vending.Client {
	t.Helper()
	for end := time.Now().Add(recovery); ; time.Sleep(50 * time.Millisecond) {
		c, err := v.Client(t.Context())
		if err == nil {
			return c
		}
		if time.Now().After(end) {
			t.Fatalf("nobody can sign in for %s: %v", recovery, err)
		}
	}
}

// readOnly reports whether the VCM raises the alarm of a full disk.
func readOnly(t *testing.T, c *vending.Client) bool {
	t.Helper()
	nodes, err := c.API.GetStatus(t.Context(), "status", c.Token)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(nodes[0].Alerts, func(a *prismtoken1.Alert) bool { return a.ECode == "TsmWeb.ReadOnly" })
}
