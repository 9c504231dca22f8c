package tsm_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// set returns the record with the value of a tag replaced, and its CRC right again.
func set(t *testing.T, record, tag, value string) string {
	t.Helper()
	rec, err := keyload.ParseRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	out := keyload.Record{Type: rec.Type}
	for _, f := range rec.Fields {
		if f.Tag == tag {
			f.Value = value
		}
		if f.Value != "" {
			out.Fields = append(out.Fields, f)
		}
	}
	return out.String()
}

func retype(t *testing.T, record, rectype string) string {
	t.Helper()
	rec, err := keyload.ParseRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	rec.Type = rectype
	return rec.String()
}

// extended fails unless err is the extended error with exactly this text.
func extended(t *testing.T, err error, text string) {
	t.Helper()
	want(t, err, tsm.CodeExtended)
	if err != nil && err.Error() != text {
		t.Errorf("text\n%s, want\n%s", err, text)
	}
}

func TestKeyAgreementRefusals(t *testing.T) {
	t.Parallel()
	root, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *tsm.Config) { c.ApprovalRoot = &root.PublicKey })
	good := r.publicKey(r.kmc)
	bad := strings.Repeat("0", 192)
	for _, c := range []struct{ name, record, text string }{
		{"missing field", set(t, good, "EXP", ""), "SM.1.1: Bad KMC PUBKEY: field EXP is missing"},
		{"invalid field", set(t, good, "KPN", "0"), "SM.1.1: Bad KMC PUBKEY: field KPN is not a number from 1 to 999999"},
		{"wrong record", retype(t, good, "KMC.PUBKEY.2"), "SM.1.1: Bad KMC PUBKEY: wrong record type KMC.PUBKEY.2"},
		{"curve", set(t, good, "CRV", "P256"), "SM.1.2: Bad KMC PUBKEY: unsupported curve P256"},
		{"point", set(t, good, "QSV", "04"+bad), "SM.1.3: Bad KMC PUBKEY: invalid point"},
		{"infinity", set(t, good, "QSV", "00"), "SM.1.3: Bad KMC PUBKEY: invalid point"},
		{"approval", signed(t, good, root), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := r.m.KeyAgreement(context.Background(), c.record)
			if c.text == "" {
				want(t, err, tsm.CodeOK)
				return
			}
			extended(t, err, c.text)
		})
	}
	ctx := context.Background()
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := signed(t, good, other)
	_, err = r.m.KeyAgreement(ctx, forged)
	extended(t, err, "SM.1.4: Bad KMC PUBKEY: approval signature invalid")
	if r.m.Approved(forged) || r.m.Approved(good) || !r.m.Approved(signed(t, good, root)) {
		t.Error("approval is judged wrongly")
	}
	_, err = r.m.KeyAgreementApproved(ctx, forged)
	extended(t, err, "SM.1.4: Bad KMC PUBKEY: approval signature invalid")
	_, err = r.m.KeyAgreementApproved(ctx, good)
	extended(t, err, "SM.1.4: Bad KMC PUBKEY: no approval signature")
	_, err = r.m.KeyAgreementApproved(ctx, signed(t, good, root))
	want(t, err, tsm.CodeOK)
	_, err = r.m.KeyAgreementUnapproved(ctx, forged)
	want(t, err, tsm.CodeOK)

	_, err = r.m.KeyAgreement(ctx, good[:len(good)-1]+"x")
	want(t, err, tsm.CodeDFFormat)
	_, err = r.m.KeyAgreement(ctx, set(t, good, "ACT", "20260302"))
	want(t, err, tsm.CodeKeyNotYetActive)
	_, err = r.m.KeyAgreement(ctx, set(t, good, "EXP", "20260228"))
	want(t, err, tsm.CodeKeyExpired)
	_, err = r.m.KeyAgreement(ctx, set(t, good, "EXP", "20260301"))
	want(t, err, tsm.CodeOK)
	for _, name := range []string{"B", "C", "D"} {
		_, err = r.m.KeyAgreement(ctx, set(t, good, "KMC", name))
		want(t, err, tsm.CodeOK)
	}
	_, err = r.m.KeyAgreement(ctx, set(t, good, "KMC", "E"))
	want(t, err, tsm.CodeKEKSlotNotFound)
	_, err = r.m.KeyAgreement(ctx, set(t, good, "KMC", "D"))
	want(t, err, tsm.CodeOK)
	if _, err := r.m.DeleteSlot(ctx, "C"); err != nil {
		t.Fatal(err)
	}
	_, err = r.m.KeyAgreement(ctx, set(t, good, "KMC", "E"))
	want(t, err, tsm.CodeOK)
}

func signed(t *testing.T, record string, root *ecdsa.PrivateKey) string {
	t.Helper()
	k, err := keyload.ParseKMCPublicKey(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Sign(root); err != nil {
		t.Fatal(err)
	}
	return k.Record().String()
}

// The response's checks in their order; a response that fails changes nothing.
func TestResponseRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(group(123456))
	ctx := context.Background()
	file := r.klf(r.kmc)
	good := file.Response
	before := r.slots()[0]
	for _, c := range []struct{ name, record, text string }{
		{"type", retype(t, good, "VKLOAD.REQ.1"), "SM.3A.1: Bad VKLOADRESP: wrong record type VKLOAD.REQ.1"},
		{"missing", set(t, good, "MAC", ""), "SM.3A.2: Bad VKLOADRESP: field MAC is missing"},
		{"module", set(t, good, "SMI", "12345678"), "SM.3B.1: Bad VKLOADRESP: wrong module id 12345678; this module is 89051616"},
		{"module key", set(t, good, "SPN", "2"), "SM.3B.2: Bad VKLOADRESP: wrong module key number 2"},
		{"KMC", set(t, good, "KMC", "NOBODY"), "SM.3B.3: Bad VKLOADRESP: unknown KMCID NOBODY"},
		{"KMC key", set(t, good, "KPN", "2"), "SM.3B.4: Bad VKLOADRESP: wrong KMC key number 2; the request was made for key 1"},
		{"scheme", set(t, good, "SCH", "C12"), "SM.3B.5: Bad VKLOADRESP: unsupported scheme C12"},
		{"point", set(t, good, "QEV", "04AB"), "SM.3B.6: Bad VKLOADRESP: invalid ephemeral point"},
		{"count", set(t, good, "CNT", "0"), "SM.3B.7: Bad VKLOADRESP: key count out of range"},
		{"time", set(t, good, "TVP", "20250101000000"), tvpText},
		{"confirmation", set(t, good, "KID", "ABCD"), "SM.3B.9: Bad VKLOADRESP: key confirmation failed"},
		{"tampered MAC", set(t, good, "MAC", strings.Repeat("AB", 16)), "SM.3B.9: Bad VKLOADRESP: key confirmation failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := r.m.ProcessResponse(ctx, c.record)
			extended(t, err, c.text)
		})
	}
	_, _, err := r.m.ProcessResponse(ctx, good+"x")
	want(t, err, tsm.CodeDFFormat)
	if after := r.slots()[0]; after != before {
		t.Errorf("a refused response changed the slot from %+v to %+v", before, after)
	}
	if _, err := r.attributes(1); err != nil {
		t.Errorf("a refused response erased a key: %v", err)
	}
	if _, err := r.credit(r.creditInput()); err != nil {
		t.Errorf("a refused response stopped vending: %v", err)
	}

	r.load(file)
	_, _, err = r.m.ProcessResponse(ctx, good) // the same again
	want(t, err, tsm.CodeKMCKeyState)
}

const tvpText = "SM.3B.8: Bad VKLOADRESP: wrong timestamp (TVP) in VKLOADRESP_KMC; possible expired or out-of-order response"

// Another VKLOADREQ after the one that the KMC answered.
func TestOutdatedRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	file := r.klf(r.kmc, group(123456))
	ctx := context.Background()
	newer, err := r.m.KeyAgreement(ctx, r.publicKey(r.kmc))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = r.m.ProcessResponse(ctx, file.Response)
	extended(t, err, tvpText)
	if s := r.slots()[0]; s.State != tsm.StatePending {
		t.Errorf("state %s", s.State)
	}
	if again, err := r.m.PendingRequest(ctx, "TEST-KMC"); err != nil || again != newer {
		t.Errorf("fetch shows %q, %v", again, err)
	}
	r.load(r.answer(r.kmc, newer))
}

// States and times of a slot through its life.
func TestSlotStates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	state := func(want string, request bool) {
		t.Helper()
		if s := r.slots(); len(s) != 1 || s[0].State != want || s[0].Request != request {
			t.Errorf("slots %+v, want %s, request %v", s, want, request)
		}
	}
	if len(r.slots()) != 0 {
		t.Error("a new module has slots")
	}
	for _, err := range []error{
		second(r.m.Finish(ctx, "TEST-KMC")), second(r.m.LoadKey(ctx, "TEST-KMC", "", 0)), second(r.m.PendingRequest(ctx, "TEST-KMC")),
	} {
		want(t, err, tsm.CodeKMCKeyState)
	}
	_, err := r.m.DeleteSlot(ctx, "TEST-KMC")
	want(t, err, tsm.CodeKEKSlotNotFound)

	file := r.klf(r.kmc, group(100001), group(100002))
	state(tsm.StatePending, true)
	if _, _, err := r.m.ProcessResponse(ctx, file.Response); err != nil {
		t.Fatal(err)
	}
	state(tsm.StateLoading, false)
	if s := r.slots()[0]; s.Announced != 2 || s.Registers != 0 {
		t.Errorf("slot %+v", s)
	}
	for _, rec := range file.Keys {
		if _, err := r.m.LoadKey(ctx, file.KMC, rec.String(), 0); err != nil {
			t.Fatal(err)
		}
	}
	_, err = r.credit(r.creditInput())
	want(t, err, tsm.CodeKMCKeyState)
	if a, _ := r.attributes(1); a.VND || a.Reason != "the key-agreement session of KMC TEST-KMC is not ended" {
		t.Errorf("VND %v, reason %q", a.VND, a.Reason)
	}
	if n, err := r.m.Finish(ctx, file.KMC); n != 2 || err != nil {
		t.Errorf("finish: %d, %v", n, err)
	}
	state(tsm.StateActive, false)
	_, err = r.m.LoadKey(ctx, file.KMC, file.Keys[0].String(), 0)
	want(t, err, tsm.CodeKMCKeyState)
	if _, err := r.credit(r.creditInput()); err != nil {
		t.Error(err)
	}
	tvp := r.slots()[0].TVP
	r.klf(r.kmc)
	state(tsm.StatePending, true) // keys still vend
	if next := r.slots()[0].TVP; next <= tvp {
		t.Errorf("TVP %s after %s", next, tvp)
	}
	if _, err := r.credit(r.creditInput()); err != nil {
		t.Error(err)
	}
	if n, err := r.m.DeleteSlot(ctx, "TEST-KMC"); n != 2 || err != nil {
		t.Errorf("delete: %d, %v", n, err)
	}
	_, err = r.credit(r.creditInput())
	want(t, err, tsm.CodeRegisterEmpty)
	r.load(r.klf(r.kmc)) // and from the beginning
}

func second[T any](_ T, err error) error { return err }

// A new request while keys are being loaded leaves the session alone.
func TestRequestDuringLoading(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := context.Background()
	file := r.klf(r.kmc, group(100001), group(100002))
	if _, _, err := r.m.ProcessResponse(ctx, file.Response); err != nil {
		t.Fatal(err)
	}
	next := r.klf(r.kmc)
	if s := r.slots()[0]; s.State != tsm.StateLoading || !s.Request {
		t.Errorf("slot %+v", s)
	}
	if _, err := r.m.LoadKey(ctx, file.KMC, file.Keys[0].String(), 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.m.ProcessResponse(ctx, next.Response); err != nil {
		t.Fatal(err)
	}
	_, err := r.attributes(1)
	want(t, err, tsm.CodeRegisterEmpty)
	_, err = r.m.LoadKey(ctx, file.KMC, file.Keys[0].String(), 0) // of the session before
	want(t, err, tsm.CodeAuthentication)
}

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

// A forged attribute is refused even when its MAC is right: what the KMC itself
// gets wrong is the module's to see.
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

// newVectorSession returns a module in the published vector's session, LOADING.
func newVectorSession(t *testing.T, v map[string]string) *tsm.Module {
	t.Helper()
	vault := newVault()
	vault.once = true
	draws := bytes.Join([][]byte{unhex(t, v["d_SM_static"]), make([]byte, 8), unhex(t, v["d_SM_eph"])}, nil)
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

// A refresh sets the limits back to what the KMC allows, and nothing else does.
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

// GA's text, byte for byte, and the reasons of VND.
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

// Keys are found by supply group and revision, newest base date first.
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
