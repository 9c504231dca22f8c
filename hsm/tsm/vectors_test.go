package tsm_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

func vectors(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("testdata/key-management.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		KeyManagement map[string]string `json:"keyManagement"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	return f.KeyManagement
}

// The module makes the vector's request, takes its response and loads its key.
func TestKeyManagementVector(t *testing.T) {
	t.Parallel()
	v := vectors(t)
	random := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	draws := bytes.Join([][]byte{random(v["d_SM_static"]), make([]byte, 8), random(v["d_SM_eph"])}, nil)
	r := &rig{t: t, vault: newVault()}
	r.vault.once = true
	m, err := tsm.Open(context.Background(), tsm.Config{
		Vault: r.vault, ModuleID: moduleID, Rand: bytes.NewReader(draws),
		Clock: fixedClock(time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.m = m
	ctx := context.Background()
	field := func(name string, skip int) string { // the P field of a worked line
		line := v[name]
		return line[skip : len(line)-5]
	}
	request, err := m.KeyAgreement(ctx, field("kc_req", 6))
	if err != nil {
		t.Fatal(err)
	}
	if request != v["VKLOAD.REQ.1"] {
		t.Errorf("request\n%s, want\n%s", request, v["VKLOAD.REQ.1"])
	}
	name, announced, err := m.ProcessResponse(ctx, field("kr_req", 6))
	if err != nil || name != "TEST-KMC" || announced != 1 {
		t.Fatalf("response: %s %d %v", name, announced, err)
	}
	a, err := m.LoadKey(ctx, "TEST-KMC", v["VK.WRAP.1"], 0)
	if err != nil {
		t.Fatal(err)
	}
	if a.Register != 1 || a.KCV != "861952" || a.SGC != 123456 || a.SGN != "DEMO" {
		t.Errorf("loaded %+v", a)
	}
	if n, err := m.Finish(ctx, "TEST-KMC"); n != 1 || err != nil {
		t.Errorf("finish: %d %v", n, err)
	}
}

type fixedClock time.Time

func (c fixedClock) Now() time.Time { return time.Time(c) }

const complianceKey = "ABABABABABABABAB949494949494949401234567"

// A module in CTS mode makes the compliance test's token in any year.
func TestComplianceToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *tsm.Config) { c.TestMode = true })
	r.with(group(201457, func(g *kmc.Group) {
		g.Key = complianceKey
		g.IUT = start.Add(time.Hour)
	}))
	r.clock.Advance(48 * time.Hour) // past IUT
	out, err := r.credit(tsm.CreditInput{Register: 1, PAN: pan11, TI: 1, EA: 11, TCT: 2, Amount: 1, TID: 85740})
	if err != nil {
		t.Fatal(err)
	}
	if out.Dec != "58625789986991357486" || out.Hex != "32D98A5616345BE2E" {
		t.Errorf("token %s %s", out.Dec, out.Hex)
	}
	st, err := r.m.Status(context.Background())
	if err != nil || !st.TestMode {
		t.Errorf("the status does not show the test mode: %+v, %v", st, err)
	}
	var verified tsm.Verified
	err = r.vault.View(context.Background(), func(tx tsm.Tx) error {
		verified, err = r.m.Verify(tx, tsm.VerifyInput{Register: 1, PAN: pan11, TI: 1, EA: 11, Token: out.Hex})
		return err
	})
	if err != nil || verified.Result != tsm.CodeOK || verified.TID != 85740 || verified.Amount != 1 {
		t.Errorf("verified %+v, %v", verified, err)
	}
}
