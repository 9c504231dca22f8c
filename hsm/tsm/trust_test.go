package tsm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func newRoot(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	root, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func listOf(t *testing.T, root *ecdsa.PrivateKey, at time.Time, records ...string) string {
	t.Helper()
	list := keyload.Approvals{Issuer: "TEST-ROOT", Date: at.Format(keyload.DateTime)}
	for _, rec := range records {
		k, err := keyload.ParseKMCPublicKey(rec)
		if err != nil {
			t.Fatal(err)
		}
		list.Approve(k)
	}
	text, err := list.SignedText(root)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A key without a signature of its own is approved by the newest list of the
// pinned root, and by nothing else.
func TestApprovalList(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t)
	root, other := newRoot(t), newRoot(t)
	key := r.publicKey(r.kmc)
	refusedKey := func(when string) {
		t.Helper()
		if r.m.Approved(key) {
			t.Errorf("%s: the key is approved", when)
		}
		_, err := r.m.KeyAgreementApproved(ctx, key)
		extended(t, err, "SM.1.4: Bad KMC PUBKEY: no approval signature")
	}
	refusedKey("without a root")
	if _, err := r.m.LoadApprovals(ctx, listOf(t, root, start, key)); !errkind.Is(err, errkind.Mode) {
		t.Errorf("a list without a root: %v", err)
	}
	pin := func(root *ecdsa.PublicKey) {
		t.Helper()
		if err := r.m.PinApprovalRoot(ctx, root); err != nil {
			t.Fatal(err)
		}
	}
	pin(&root.PublicKey)
	refusedKey("without a list")
	if _, err := r.m.LoadApprovals(ctx, listOf(t, other, start, key)); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("another root's list: %v", err)
	}
	load := func(text string) {
		t.Helper()
		if _, err := r.m.LoadApprovals(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	load(listOf(t, root, start, key))
	_, err := r.m.KeyAgreementApproved(ctx, key)
	want(t, err, tsm.CodeOK)
	pin(&root.PublicKey) // the same again keeps its list
	r.m = r.open(r.vault)
	if got := r.m.Trust(); !r.m.Approved(key) || got.List.Issuer != "TEST-ROOT" || !got.Root.Equal(&root.PublicKey) {
		t.Errorf("after opening again: %+v", got)
	}
	if _, err := r.m.LoadApprovals(ctx, listOf(t, root, start.Add(-time.Second), key)); !errkind.Is(err, errkind.Refused) {
		t.Errorf("an older list: %v", err)
	}
	load(listOf(t, root, start.Add(time.Second)))
	refusedKey("not on the newest list")
	load(listOf(t, root, start.Add(time.Second), key))
	pin(&other.PublicKey)
	refusedKey("under another root")
	pin(nil)
	r.m = r.open(r.vault)
	if got := r.m.Trust(); got.Root != nil || got.List.Issuer != "" {
		t.Errorf("after it was removed: %+v", got)
	}
}

// A module has as many registers as its hardware.
func TestRegistersOfTheHardware(t *testing.T) {
	t.Parallel()
	for hardware, n := range map[string]int{"": 999, "TSM500E1": 999, "TSM250E1": 25} {
		r := newRig(t, func(c *tsm.Config) { c.HardwareID = hardware })
		if st, err := r.m.Status(context.Background()); err != nil || st.Registers != n {
			t.Errorf("%s: %d registers, %v", hardware, st.Registers, err)
		}
	}
}

// The test mode shows where a KMC and a client of the low-level API look.
func TestModeShows(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *tsm.Config) { c.TestMode = true })
	st, err := r.m.Status(context.Background())
	if err != nil || st.HardwareID != "TSM500I-CTS" {
		t.Errorf("hardware %q, %v", st.HardwareID, err)
	}
	request, err := r.m.KeyAgreement(context.Background(), r.publicKey(r.kmc))
	if err != nil {
		t.Fatal(err)
	}
	if q, err := keyload.ParseRequestText(request); err != nil || q.HardwareID != "TSM500I-CTS" {
		t.Errorf("request of %q, %v", q.HardwareID, err)
	}
}
