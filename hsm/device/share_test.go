package device_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// tenant is one with a share.
type tenant struct {
	secret tenantshare.Secret
	key    string
}

func newTenant(t *testing.T) tenant {
	t.Helper()
	s, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return tenant{s, key}
}

// seal makes the share of a start request for an hour from now.
func (r *rig) seal(who tenant, esn, id string, later time.Duration) []byte {
	r.t.Helper()
	ident, err := r.client.Identity(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	from := r.clock.Now().Add(later)
	sealed, err := tenantshare.Seal(ident.EncryptionKey, who.secret, tenantshare.Use{ESN: esn, UUID: id, NotBefore: from, NotAfter: from.Add(time.Hour)})
	if err != nil {
		r.t.Fatal(err)
	}
	return sealed
}

func TestRestrictStartup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	who, stranger := newTenant(t), newTenant(t)
	p := r.create(hsmapi.CreatePartition{ShareKey: who.key})
	other := r.create(hsmapi.CreatePartition{ShareKey: who.key})
	if p.ShareKey != who.key {
		t.Errorf("partition %+v", p)
	}
	good := r.seal(who, esn, p.UUID, 0)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for what, tc := range map[string]struct {
		share []byte
		kind  errkind.Kind
		says  string
	}{
		"no share":                {nil, errkind.Refused, "start request"},
		"not a share":             {[]byte("hello"), errkind.Integrity, "not made for this module"},
		"changed":                 {flipped, errkind.Integrity, "not made for this module"},
		"a stranger's secret":     {r.seal(stranger, esn, p.UUID, 0), errkind.Integrity, "does not open"},
		"for another VCM":         {r.seal(who, esn, other.UUID, 0), errkind.Integrity, "not made for this module and VCM"},
		"for another unit":        {r.seal(who, "FFFF-4567-89AB", p.UUID, 0), errkind.Integrity, "not made for this module"},
		"expired":                 {r.seal(who, esn, p.UUID, -61*time.Minute), errkind.Refused, "2026-03-01T10:00:00Z"},
		"not yet valid":           {r.seal(who, esn, p.UUID, time.Minute), errkind.Refused, "module's clock says 2026-03-01T10:00:00Z"},
		"sealed to another unit ": {newRig(t).seal(who, esn, p.UUID, 0), errkind.Integrity, "not made for this module"},
	} {
		_, err := r.attach(hsmapi.Attach{UUID: p.UUID, Share: tc.share})
		if !errkind.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v (%v), want %v with %q", what, err, errkind.Of(err), tc.kind, tc.says)
		}
	}
	ch, err := r.attach(hsmapi.Attach{UUID: p.UUID, Share: good})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ch.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer key.Destroy()
	if holds(t, r.cfg.Dir, key.Bytes()) || holds(t, r.cfg.Dir, who.secret) {
		t.Error("the unit's folder holds the key or the tenant's share in clear")
	}
	_, err = r.client.Create(t.Context(), hsmapi.CreatePartition{UUID: p.UUID, ShareKey: stranger.key})
	want(t, err, errkind.Refused)
	_, err = r.client.Create(t.Context(), hsmapi.CreatePartition{UUID: p.UUID})
	want(t, err, errkind.Refused)
}

// The provider has every file, the unit and root on its host, but no share. He
// edits the partition's file to say that there is none.
func TestProviderCannotStripTheShare(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	who := newTenant(t)
	p := r.create(hsmapi.CreatePartition{ShareKey: who.key})
	free := r.create(hsmapi.CreatePartition{})
	r.stop()
	path := r.file("partitions/" + p.UUID)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), `"shareKey":"`+who.key+`",`, "", 1)
	if edited == string(text) {
		t.Fatal("the file does not look as this test expects")
	}
	if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	_, err = r.attach(hsmapi.Attach{UUID: p.UUID})
	want(t, err, errkind.Integrity)
	_, err = r.client.Create(t.Context(), hsmapi.CreatePartition{UUID: p.UUID})
	want(t, err, errkind.Integrity)
	r.open(free.UUID) // one damaged partition harms no other
	if err := r.client.Destroy(t.Context(), p.UUID); err != nil {
		t.Errorf("a damaged partition cannot be destroyed: %v", err)
	}
}

func TestProtect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	who, next := newTenant(t), newTenant(t)
	p := r.create(hsmapi.CreatePartition{})
	ch, _, key := r.open(p.UUID)
	_, err := r.client.Protect(t.Context(), hsmapi.Protect{UUID: p.UUID, ShareKey: who.key})
	want(t, err, errkind.Mode)
	ch.Close()
	waitClosed(t, r, p.UUID)

	for _, step := range []struct {
		to    string
		share []byte
	}{
		{who.key, nil},
		{who.key, nil}, // repeated
		{next.key, r.seal(who, esn, p.UUID, 0)},
		{"", r.seal(next, esn, p.UUID, 0)},
		{who.key, nil},
	} {
		got, err := r.client.Protect(t.Context(), hsmapi.Protect{UUID: p.UUID, ShareKey: step.to, Share: step.share})
		if err != nil || got.ShareKey != step.to || got.ModuleID != p.ModuleID {
			t.Fatalf("protect by %q: %+v, %v", step.to, got, err)
		}
	}
	_, err = r.client.Protect(t.Context(), hsmapi.Protect{UUID: p.UUID})
	want(t, err, errkind.Refused)
	_, err = r.client.Protect(t.Context(), hsmapi.Protect{UUID: p.UUID, Share: r.seal(next, esn, p.UUID, 0)})
	want(t, err, errkind.Integrity)

	r.restart()
	ch, err = r.attach(hsmapi.Attach{UUID: p.UUID, Share: r.seal(who, esn, p.UUID, 0)})
	if err != nil {
		t.Fatal(err)
	}
	_, opened, err := ch.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(take(opened), key) {
		t.Error("the key changed with its protection")
	}
}

// A share is used when the VCM is attached; the unit does not keep it.
func TestShareIsNeededAgainAfterEveryStop(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	who := newTenant(t)
	p := r.create(hsmapi.CreatePartition{ShareKey: who.key})
	ch, err := r.attach(hsmapi.Attach{UUID: p.UUID, Share: r.seal(who, esn, p.UUID, 0)})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ch.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key.Destroy()
	ch.Close()
	waitClosed(t, r, p.UUID)
	_, err = r.attach(hsmapi.Attach{UUID: p.UUID})
	want(t, err, errkind.Refused)
}
