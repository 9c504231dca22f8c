package prismtoken_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// status signs in anew, as watchers do, and returns the one node's state.
func (r *rig) status() *prismtoken1.NodeStatus {
	r.t.Helper()
	c := r.client()
	st := must(c.GetStatus(context.Background(), "status", r.signIn(c, "watcher")))(r.t)
	if len(st) != 1 {
		r.t.Fatalf("%d nodes", len(st))
	}
	return st[0]
}

// licence loads a transaction licence.
func (r *rig) licence(key *ecdsa.PrivateKey, transactions uint32, until time.Time) {
	r.t.Helper()
	now := must(r.module.Counter(context.Background()))(r.t)
	l := keyload.TransactionLicence{ModuleID: moduleID, Nonce: now.Nonce, Transactions: transactions, InhibitVend: until}
	must(r.module.LoadLicence(context.Background(), must(l.SignedText(key))(r.t)))(r.t)
}

// vend issues a credit token of that amount.
func (r *rig) vend(amount float64) {
	r.t.Helper()
	c := r.client()
	must(c.IssueCreditToken(context.Background(), "m", r.signIn(c, "watcher"), newMeter("00000000000", 11, 123456), 0, amount, 0, 0))(r.t)
}

// fill writes to the store until done.
func (r *rig) fill(done func() bool) {
	r.t.Helper()
	for n := 0; !done(); n++ {
		_ = r.store.Update(context.Background(), func(tx *store.Tx) error { // the last one may be refused
			return tx.Bucket("filler").Put(fmt.Appendf(nil, "%d", n), make([]byte, 32<<10))
		})
	}
}

// TestStatusKeys: every key that a live server of the product gives.
func TestStatusKeys(t *testing.T) {
	t.Parallel()
	key := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	r := newRig(t, func(r *rig) { r.change = func(c *tsm.Config) { c.InstructionKey = &key.PublicKey } })
	r.user("watcher")
	r.licence(key, 93080, epoch.AddDate(0, 0, 100))
	want := map[string]string{
		"ApiType": "vending", "Counter": "8643", "FirmwareId": "STS64V10", "HardwareId": "", "ModuleId": moduleID, "TxCounter": "93080",
		"port.Class": "VCM", "port.Logical": "VCM", "port.Physical": "127.0.0.1:9443", "port.Uri": "vcm://127.0.0.1:9443",
		"smcq.Nonce": "", "smcq.ex.InhibitVendDateUtc": "20260609T100000Z", "smcq.ex.InhibitVendDateLocal": epoch.AddDate(0, 0, 100).Local().Format("2006-01-02 15:04:05 MST"),
		"smpd.AcMode": "AC:NONE", "smpd.CertMode": "NON-PCI-HSM,NON-FIPS", "smpd.FwApi": "STS6", "smpd.FwBinary": "BIN:STS6", "smpd.FwVer": "6.10.0.0",
		"smpd.HwFamily": "", "smpd.Tps": "25", "smqd.WindowSize": "7", "smqd.ex.RtcDriftSeconds": "0",
		"smqd.ex.RtcTimeLocal": epoch.Local().Format("2006-01-02 15:04:05 MST"), "smqd.ex.RtcTimeUtc": "20260301T100000Z",
		"smqi.FirmwareHashHex": "", "smqi.IdSm": "", "smud.Uid": "uid", "SerialNumber": "0000-0000-0001",
	}
	got := r.status().Info
	for name, value := range want {
		if had := got[name]; had == "" || value != "" && had != value {
			t.Errorf("%s is %q, expected %q", name, had, value)
		}
		delete(got, name)
	}
	for name := range got {
		if !strings.HasPrefix(name, "ex.") {
			t.Errorf("%s is not one of the product's keys", name)
		}
	}
}

// TestNotices: each thing that the guides want noticed has an alert, with a code
// that stays, while it lasts.
func TestNotices(t *testing.T) {
	t.Parallel()
	key := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	licensed := func(r *rig) { r.change = func(c *tsm.Config) { c.InstructionKey = &key.PublicKey } }
	limited := func(ulm uint32) kmc.Group { return group(123456, 1, func(g *kmc.Group) { g.ULM = ulm }) }
	later := func(days int) func(*rig) {
		return func(r *rig) { r.clock.Advance(time.Duration(days) * 24 * time.Hour) }
	}
	aging := func(r *rig) {
		r.prefer(accounts.PrefPasswordMaxAge, "365")
		r.user("fading")
		later(336)(r)
	}
	full := func(r *rig) { r.quota = 8 << 20 }
	cases := map[string]struct {
		before func(*rig) // the rig is made
		raise  func(*rig)
		text   string
	}{
		"PToken.InhibitVendDate":   {licensed, func(r *rig) { r.licence(key, 5000, epoch.AddDate(0, 0, 29)) }, "2026-03-30"},
		"PToken.TransactionsLow":   {licensed, func(r *rig) { r.licence(key, 999, time.Time{}) }, "999 transactions are left"},
		"PToken.KeyRefresh":        {nil, later(61), "SGC 123456 KRN 1"},
		"PToken.KeyExpiry":         {nil, func(r *rig) { r.load(group(654321, 1, func(g *kmc.Group) { g.EXP = epoch.AddDate(0, 0, 89) })) }, "SGC 654321 KRN 1"},
		"PToken.KeyCannotVend":     {nil, func(r *rig) { r.load(limited(10)); r.vend(10) }, "SGC 123456 KRN 1"},
		"PToken.KeyLimitLow":       {nil, func(r *rig) { r.load(limited(100)); r.vend(91) }, "SGC 123456 KRN 1"},
		"PToken.RtcDrift":          {func(r *rig) { r.host = clock.NewFake(epoch.Add(61 * time.Second)) }, func(*rig) {}, "-61 seconds"},
		"PToken.SelfTest":          {func(r *rig) { r.change = func(c *tsm.Config) { c.BreakSelfTest = tsm.SelfTests()[0] } }, func(*rig) {}, tsm.SelfTests()[0]},
		"PToken.TestMode":          {func(r *rig) { r.testMode = true }, func(*rig) {}, "CTS test mode"},
		"PToken.NoVendingKeys":     {nil, func(*rig) {}, "No vending key is loaded"},
		"PToken.KmcKeyExpiry":      {nil, func(r *rig) { r.load(group(123456, 1)); later(5*365 - 80)(r) }, "TEST-KMC"},
		"PToken.SlotLoading":       {nil, func(r *rig) { r.begin(group(123456, 1)) }, "TEST-KMC is in LOADING state"},
		"TsmWeb.CertificateExpiry": {nil, later(50 * 365), "The TLS certificate expires"},
		"TsmWeb.AccountExpiry":     {nil, aging, "1 accounts expire soon"},
		"TsmWeb.PasswordExpiry":    {nil, aging, "2 passwords expire soon"},
		"TsmWeb.FirstPassword":     {nil, func(*rig) {}, "no password"},
		"TsmWeb.DiskSpace":         {full, func(r *rig) { r.fill(func() bool { return r.store.DiskUsed() > r.quota/100*91 }) }, "of the disk quota are used"},
		"TsmWeb.ReadOnly":          {full, func(r *rig) { r.fill(r.store.ReadOnly) }, "over its disk quota"},
	}
	// Of an unknown firmware no module can be made here: see package dashboard.
	codes := slices.DeleteFunc(dashboard.Codes(), func(c string) bool { return c == "PToken.Firmware" })
	if !slices.Equal(slices.Sorted(slices.Values(codes)), slices.Sorted(maps.Keys(cases))) {
		t.Errorf("the codes are %v", codes)
	}
	for code, c := range cases {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) {
				if c.before != nil {
					c.before(r)
				}
			})
			r.watcher()
			if code == "PToken.KeyRefresh" {
				r.load(group(123456, 1))
			}
			if before := r.alerts(); c.before == nil && before[code] != "" && code != "PToken.NoVendingKeys" && code != "TsmWeb.FirstPassword" {
				t.Errorf("before it is due: %q", before[code])
			}
			c.raise(r)
			if got := r.alerts()[code]; !strings.Contains(got, c.text) {
				t.Errorf("the alert is %q, without %q", got, c.text)
			}
		})
	}
}

// watcher makes a user who stays for longer than anything is watched here.
func (r *rig) watcher() {
	r.t.Helper()
	r.prefer(accounts.PrefPasswordMaxAge, "36500")
	must(r.accounts.Create(context.Background(), admin, accounts.NewUser{
		Username: "watcher", Roles: []string{accounts.RoleAPI, accounts.RoleIssueAny}, Password: password, AccountExpires: epoch.AddDate(90, 0, 0),
	}))(r.t)
}

func (r *rig) prefer(name, value string) {
	r.t.Helper()
	must(r.accounts.Preferences().Set(context.Background(), admin, ^accounts.Permission(0), name, value))(r.t)
}

// alerts are the texts by code.
func (r *rig) alerts() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	for _, a := range r.status().Alerts {
		out[a.ECode] = a.EMsgEn
	}
	return out
}

// TestNoticesEnd: what was done about removes the notice.
func TestNoticesEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user("watcher")
	r.load(group(123456, 1))
	if err := r.accounts.SetPassword(context.Background(), admin, accounts.BuiltIn, "Passw0rd"); err != nil {
		t.Fatal(err)
	}
	if got := r.alerts(); len(got) != 0 {
		t.Errorf("alerts %v", got)
	}
}
