package tsm_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

func TestLoadKeyRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *tsm.Config) { c.Registers = 3 })
	ctx := context.Background()
	file := r.klf(r.kmc, group(100001), group(100002), group(100003), group(100004))
	if _, _, err := r.m.ProcessResponse(ctx, file.Response); err != nil {
		t.Fatal(err)
	}
	load := func(record string, register int) error {
		_, err := r.m.LoadKey(ctx, file.KMC, record, register)
		return err
	}
	good := file.Keys[0].String()
	want(t, load(good[:20], 0), tsm.CodeDFFormat)
	want(t, load(retype(t, good, "VK.WRAP.2"), 0), tsm.CodeDFFormat)
	want(t, load(set(t, good, "MAC", ""), 0), tsm.CodeAuthentication)
	want(t, load(set(t, good, "SGC", "999999"), 0), tsm.CodeAuthentication)
	want(t, load(set(t, good, "KID", "0000"), 0), tsm.CodeAuthentication)
	want(t, load(good, 4), tsm.CodePTVDRange)
	want(t, load(good, 2), tsm.CodeOK)
	want(t, load(good, 0), tsm.CodeOK) // the same key stays where it is
	if a, err := r.attributes(2); err != nil || a.SGC != 100001 {
		t.Errorf("register 2: %+v, %v", a, err)
	}
	want(t, load(good, 3), tsm.CodeOK) // and moves when told to
	_, err := r.attributes(2)
	want(t, err, tsm.CodeRegisterEmpty)
	want(t, load(file.Keys[1].String(), 0), tsm.CodeOK)
	want(t, load(file.Keys[2].String(), 0), tsm.CodeOK)
	want(t, load(file.Keys[3].String(), 0), tsm.CodeNoRegister)
	if _, err := r.m.DeleteKey(ctx, 1); err != nil {
		t.Fatal(err)
	}
	want(t, load(file.Keys[3].String(), 0), tsm.CodeOK)
	want(t, second(r.m.DeleteKey(ctx, 0)), tsm.CodePTVDRange)
	want(t, second(r.m.DeleteKey(ctx, 1)), tsm.CodeOK)
	want(t, second(r.m.DeleteKey(ctx, 1)), tsm.CodeRegisterEmpty)

	other := newKMC(t, "OTHER")
	r.introduce(other)
	theirs := r.klf(other, group(100001))
	if _, _, err := r.m.ProcessResponse(ctx, theirs.Response); err != nil {
		t.Fatal(err)
	}
	_, err = r.m.LoadKey(ctx, "OTHER", theirs.Keys[0].String(), 2) // not of their slot
	want(t, err, tsm.CodeNoRegister)
	_, err = r.m.LoadKey(ctx, "OTHER", theirs.Keys[0].String(), 0) // the same key, of another KMC
	want(t, err, tsm.CodeOK)
}

func TestLoadKeyAttributes(t *testing.T) {
	t.Parallel()
	v := vectors(t)
	keys := keyload.SessionKeys{KEK: unhex(t, v["KEK"]), KAK: unhex(t, v["KAK"])}
	vk := unhex(t, v["VK_160"])
	r := newVectorSession(t, v)
	base := keyload.KeyAttributes{ACT: start, BDT: 2014, DKG: 4, IUT: start, KCV: "861952", KEN: 255, KRN: 1, KTC: "VUDK", SGC: 1, SBM: 0xFFFF}
	for _, c := range []struct {
		name   string
		change func(*keyload.KeyAttributes)
		vk     []byte
		code   tsm.Code
	}{
		{"ok", func(*keyload.KeyAttributes) {}, vk, tsm.CodeOK},
		{"KCV", func(a *keyload.KeyAttributes) { a.KCV = "861953" }, vk, tsm.CodeAttribute},
		{"no KCV", func(a *keyload.KeyAttributes) { a.KCV = "" }, vk, tsm.CodeAttribute},
		{"BDT", func(a *keyload.KeyAttributes) { a.BDT = 2015 }, vk, tsm.CodeAttribute},
		{"DKG 03", func(a *keyload.KeyAttributes) { a.DKG = 3 }, vk, tsm.CodeAttribute},
		{"DKG 02 with 160 bits", func(a *keyload.KeyAttributes) { a.DKG = 2 }, vk, tsm.CodeAttribute},
		{"DKG 04 with 64 bits", func(*keyload.KeyAttributes) {}, vk[:8], tsm.CodeAttribute},
		{"KRN 0", func(a *keyload.KeyAttributes) { a.KRN = 0 }, vk, tsm.CodeAttribute},
		{"KRN 10", func(a *keyload.KeyAttributes) { a.KRN = 10 }, vk, tsm.CodeAttribute},
		{"KEN 256", func(a *keyload.KeyAttributes) { a.KEN = 256 }, vk, tsm.CodeAttribute},
		{"KTC", func(a *keyload.KeyAttributes) { a.KTC = "DUTK" }, vk, tsm.CodeAttribute},
		{"no KTC", func(a *keyload.KeyAttributes) { a.KTC = "" }, vk, tsm.CodeAttribute},
		{"SGC", func(a *keyload.KeyAttributes) { a.SGC = 1000000 }, vk, tsm.CodeAttribute},
		{"SGN", func(a *keyload.KeyAttributes) { a.SGN = strings.Repeat("x", 41) }, vk, tsm.CodeAttribute},
		{"CLU", func(a *keyload.KeyAttributes) { a.CLU = 10 }, vk, tsm.CodeAttribute},
		{"empty key", func(*keyload.KeyAttributes) {}, nil, tsm.CodeAttribute},
	} {
		a := base
		c.change(&a)
		var rec keyload.Record
		var err error
		if c.vk != nil {
			rec, err = keyload.WrapVendingKey(keys, "0001", a, c.vk)
		} else { // authenticated, but not wrapped under the session's key
			rec, err = keyload.WrapVendingKey(keyload.SessionKeys{KEK: make([]byte, 24), KAK: keys.KAK}, "0001", a, vk)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.LoadKey(context.Background(), "TEST-KMC", rec.String(), 0)
		if got := tsm.CodeOf(err); got != c.code {
			t.Errorf("%s: code %s, want %s (%v)", c.name, got, c.code, err)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	rec := make([]byte, len(s)/2)
	for i := range rec {
		hi, lo := strings.IndexByte("0123456789ABCDEF", s[2*i]), strings.IndexByte("0123456789ABCDEF", s[2*i+1])
		if hi < 0 || lo < 0 {
			t.Fatalf("%q is no hex", s)
		}
		rec[i] = byte(hi<<4 | lo)
	}
	return rec
}

func newVectorSession(t *testing.T, v map[string]string) *tsm.Module {
	t.Helper()
	vault := newVault()
	vault.once = true
	draws := bytes.Join([][]byte{unhex(t, v["d_SM_static"]), make([]byte, 8), unhex(t, v["d_SM_eph"]), make([]byte, 64)}, nil)
	m, err := tsm.Open(context.Background(), tsm.Config{
		Vault: vault, ModuleID: moduleID, Rand: bytes.NewReader(draws),
		Clock: fixedClock(time.Date(2025, 11, 20, 12, 0, 0, 0, time.UTC)),
	})
	if err != nil {
		t.Fatal(err)
	}
	kc := v["kc_req"]
	if _, err := m.KeyAgreement(context.Background(), kc[6:len(kc)-5]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.ProcessResponse(context.Background(), v["VKLOAD.RSP.1"]); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRefreshResetsLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(group(123456, func(g *kmc.Group) { g.ULM = 110 }))
	if _, err := r.credit(r.creditInput()); err != nil {
		t.Fatal(err)
	}
	_, err := r.credit(r.creditInput())
	want(t, err, tsm.CodeInsufficientCredit)
	r.m = r.open(r.vault) // a restart does not
	_, err = r.credit(r.creditInput())
	want(t, err, tsm.CodeInsufficientCredit)
	r.load(r.klf(r.kmc))
	if a, err := r.attributes(1); err != nil || a.ULM != 110 {
		t.Errorf("ULM %d, %v", a.ULM, err)
	}
}

func TestAttributesText(t *testing.T) {
	t.Parallel()
	a := tsm.Attributes{
		ACT: time.Date(2014, 1, 1, 0, 0, 0, 0, time.UTC), BDT: 2014, CLM: unlimit, DKG: 4,
		EXP: time.Date(2045, 1, 1, 0, 0, 0, 0, time.UTC), IUT: time.Date(2030, 12, 31, 23, 59, 59, 0, time.UTC),
		KCV: "000000", KEN: 255, KRN: 1, KTC: tsm.VUDK, SBM: 0xFF, SGC: 201457, SGN: "TEST", ULM: unlimit, VND: true,
	}
	const text = "ACT20140101000000;BDT2014;CLMFFFFFFFF;CLU0;DKG04;EXP20450101;IUT20301231235959;KCV000000;KEN255;KRN1;KTCVUDK;SBM00FF;SGC201457;SGNTEST;ULMFFFFFFFF;VND1"
	if a.String() != text {
		t.Errorf("got  %s\nwant %s", a, text)
	}
}

func TestVendReasons(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*kmc.Group)
		after  time.Duration
		reason string
	}{
		"can vend":   {func(*kmc.Group) {}, 0, ""},
		"default":    {func(g *kmc.Group) { g.KTC = "VDDK" }, 0, ""},
		"not active": {func(g *kmc.Group) { g.ACT = start.Add(time.Minute) }, 0, "not active before 2026-03-01 10:01:00 UTC"},
		"issued":     {func(*kmc.Group) {}, 91 * 24 * time.Hour, "issued until 2026-05-30 10:00:00 UTC"},
		"KEN":        {func(g *kmc.Group) { g.KEN = 10 }, 0, "expired by its expiry number 10"},
		"1993":       {func(g *kmc.Group) { g.BDT = 1993 }, 0, "the token identifiers of base date 1993 are used up"},
		"2035":       {func(g *kmc.Group) { g.BDT = 2035 }, 0, "the base date 2035 lies ahead"},
		"ULM":        {func(g *kmc.Group) { g.ULM = 0 }, 0, "the unit limit is used up"},
		"CLM":        {func(g *kmc.Group) { g.CLM = 0 }, 0, "the currency limit is used up"},
		"DKGA01":     {func(g *kmc.Group) { g.DKG = 1 }, 0, "decoder-key generation algorithm 01 is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t).with(group(123456, c.change))
			r.clock.Advance(c.after)
			a, err := r.attributes(1)
			if err != nil || a.Reason != c.reason || a.VND != (c.reason == "") {
				t.Errorf("VND %v, reason %q, %v; want %q", a.VND, a.Reason, err, c.reason)
			}
		})
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(group(500, func(g *kmc.Group) { g.BDT = 2035 }), group(500), group(500, func(g *kmc.Group) { g.KRN = 2 }), group(501))
	err := r.vault.View(context.Background(), func(tx tsm.Tx) error {
		for _, c := range []struct{ sgc, krn, n, first int }{{500, 1, 2, 2035}, {500, 2, 1, 2014}, {500, 0, 3, 2035}, {501, 0, 1, 2014}, {502, 0, 0, 0}, {50, 0, 0, 0}} {
			found, err := r.m.Find(tx, c.sgc, c.krn)
			if err != nil || len(found) != c.n || c.n > 0 && found[0].BDT != c.first {
				t.Errorf("SGC %d KRN %d: %+v, %v", c.sgc, c.krn, found, err)
			}
		}
		all, err := r.m.Registers(tx)
		if err != nil || len(all) != 4 || all[0].Register != 1 || all[3].Register != 4 {
			t.Errorf("registers %+v, %v", all, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A key is not used after its last day, whatever its IUT says.
func TestLastDay(t *testing.T) {
	t.Parallel()
	v := vectors(t)
	keys := keyload.SessionKeys{KEK: unhex(t, v["KEK"]), KAK: unhex(t, v["KAK"])}
	for day, code := range map[int]tsm.Code{19: tsm.CodeKeyExpired, 20: tsm.CodeOK} {
		m := newVectorSession(t, v)
		ctx := context.Background()
		a := keyload.KeyAttributes{ACT: start.AddDate(-2, 0, 0), BDT: 2014, DKG: 4, EXP: time.Date(2025, 11, day, 0, 0, 0, 0, time.UTC),
			IUT: start.AddDate(1, 0, 0), KCV: "861952", KEN: 255, KRN: 1, KTC: "VUDK", SGC: 1, SBM: 1, ULM: unlimit, CLM: unlimit}
		rec, err := keyload.WrapVendingKey(keys, "0001", a, unhex(t, v["VK_160"]))
		must(t, err)
		must(t, second(m.LoadKey(ctx, "TEST-KMC", rec.String(), 0)))
		must(t, second(m.Finish(ctx, "TEST-KMC")))
		tid := uint32(m.Now().Sub(time.Date(2014, 1, 1, 0, 0, 0, 0, time.UTC)) / time.Minute)
		err = m.Vault().Update(ctx, func(tx tsm.Tx) error {
			return second(m.Credit(tx, tsm.CreditInput{Register: 1, PAN: pan11, TI: 1, EA: 11, TCT: 2, Amount: 1, TID: tid}))
		})
		want(t, err, code)
	}
}
