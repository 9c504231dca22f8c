package tenantshare_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	esn = "0123-4567-89AB"
	id  = "00000000-0000-4000-8000-000000000001"
)

func unitKey(t testing.TB) (*ecdh.PrivateKey, string) {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k, base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
}

func TestSealIsForOneUse(t *testing.T) {
	t.Parallel()
	unit, public := unitKey(t)
	s, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	use := tenantshare.Use{ESN: esn, UUID: id, NotBefore: from, NotAfter: from.Add(time.Hour)}
	sealed, err := tenantshare.Seal(public, s, use)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, s) {
		t.Error("the secret is in the sealed share in clear")
	}
	for what, tc := range map[string]struct {
		esn, id string
		at      time.Time
		kind    errkind.Kind
	}{
		"one second early": {esn, id, from.Add(-time.Second), errkind.Refused},
		"first second":     {esn, id, from, 0},
		"last second":      {esn, id, from.Add(time.Hour), 0},
		"one second late":  {esn, id, from.Add(time.Hour + time.Second), errkind.Refused},
		"another unit":     {"F" + esn[1:], id, from, errkind.Integrity},
		"another VCM":      {esn, id[:35] + "2", from, errkind.Integrity},
	} {
		got, err := tenantshare.Open(unit, sealed, tc.esn, tc.id, tc.at)
		if tc.kind == 0 && (err != nil || !bytes.Equal(got, s)) || tc.kind != 0 && !errkind.Is(err, tc.kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
	other, _ := unitKey(t)
	if _, err := tenantshare.Open(other, sealed, esn, id, from); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("another unit's key opened it: %v", err)
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	s, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	other, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	public, err := s.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	key := bytes.Repeat([]byte{9}, 32)
	wrapped, err := tenantshare.Wrap(public, id, key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tenantshare.Unwrap(s, id, wrapped); err != nil || !bytes.Equal(got, key) {
		t.Errorf("%x, %v", got, err)
	}
	for what, try := range map[string]func() ([]byte, error){
		"another secret": func() ([]byte, error) { return tenantshare.Unwrap(other, id, wrapped) },
		"no secret":      func() ([]byte, error) { return tenantshare.Unwrap(nil, id, wrapped) },
		"another VCM":    func() ([]byte, error) { return tenantshare.Unwrap(s, id[:35]+"2", wrapped) },
		"cut off":        func() ([]byte, error) { return tenantshare.Unwrap(s, id, wrapped[:40]) },
	} {
		if got, err := try(); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %x, %v", what, got, err)
		}
	}
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	_, good := unitKey(t)
	if err := tenantshare.CheckKey(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "x", good + "\n", good[:40], base64.StdEncoding.EncodeToString(make([]byte, 31))} {
		if err := tenantshare.CheckKey(bad); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := tenantshare.Seal(good, tenantshare.Secret("short"), tenantshare.Use{}); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("a short secret: %v", err)
	}
}

// FuzzOpen feeds what a provider may forge to the unit.
func FuzzOpen(f *testing.F) {
	unit, public := unitKey(f)
	s, err := tenantshare.Generate()
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	sealed, err := tenantshare.Seal(public, s, tenantshare.Use{ESN: esn, UUID: id, NotBefore: now, NotAfter: now})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add(sealed[:32])
	f.Fuzz(func(t *testing.T, p []byte) {
		if got, err := tenantshare.Open(unit, p, esn, id, now); err == nil {
			t.Errorf("a forged share opened: %x", got)
		}
	})
}
