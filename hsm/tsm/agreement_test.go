package tsm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

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
	r := newRig(t)
	if err := r.m.PinApprovalRoot(context.Background(), &root.PublicKey); err != nil {
		t.Fatal(err)
	}
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

// A forged attribute is refused even when its MAC is right: what the KMC itself

// gets wrong is the module's to see.

// newVectorSession returns a module in the published vector's session, LOADING.

// A refresh sets the limits back to what the KMC allows, and nothing else does.

// GA's text, byte for byte, and the reasons of VND.

// Keys are found by supply group and revision, newest base date first.
