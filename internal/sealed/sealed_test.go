package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/sha3"
	"encoding/hex"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func testKey(t testing.TB, secret byte, purpose string) *Key {
	t.Helper()
	k, err := New(bytes.Repeat([]byte{secret}, KeySize), purpose)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestBoxOpensOnlyWhereItBelongs(t *testing.T) {
	t.Parallel()
	k := testKey(t, 1, "values")
	place := Place([]byte("bucket"), []byte("key"))
	box := k.Seal(nil, []byte("tessera"), place)
	if len(box) != len("tessera")+Overhead {
		t.Fatalf("box of %d bytes", len(box))
	}
	got, err := k.Open(nil, box, place)
	if err != nil || string(got) != "tessera" {
		t.Fatalf("Open = %q, %v", got, err)
	}
	cases := map[string]func() error{
		"other place":   func() error { _, err := k.Open(nil, box, Place([]byte("bucketk"), []byte("ey"))); return err },
		"other secret":  func() error { _, err := testKey(t, 2, "values").Open(nil, box, place); return err },
		"other purpose": func() error { _, err := testKey(t, 1, "header").Open(nil, box, place); return err },
		"truncated":     func() error { _, err := k.Open(nil, box[:Overhead-1], place); return err },
		"empty":         func() error { _, err := k.Open(nil, nil, place); return err },
	}
	for name, f := range cases {
		if err := f(); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range box {
		bad := bytes.Clone(box)
		bad[i] ^= 1
		if _, err := k.Open(nil, bad, place); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("bit flipped in byte %d: %v", i, err)
		}
		if _, err := k.OpenInPlace(bad, place); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("bit flipped in byte %d, in place: %v", i, err)
		}
	}
	if _, err := k.OpenInPlace(bytes.Clone(box[:Overhead-1]), place); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("truncated, in place: %v", err)
	}
	if got, err := k.OpenInPlace(bytes.Clone(box), place); err != nil || string(got) != "tessera" {
		t.Errorf("OpenInPlace = %q, %v", got, err)
	}
}

func TestEachSealingIsItsOwn(t *testing.T) {
	t.Parallel()
	k := testKey(t, 1, "values")
	a, b := k.Seal(nil, []byte("x"), nil), k.Seal(nil, []byte("x"), nil)
	if bytes.Equal(a, b) || bytes.Equal(ID(a), ID(b)) {
		t.Error("two sealings of one value are equal")
	}
	if len(ID(a)) != IDSize || ID(a[:Overhead-1]) != nil {
		t.Error("ID has the wrong length")
	}
}

func TestCommitmentNamesTheKey(t *testing.T) {
	t.Parallel()
	k := testKey(t, 1, "values")
	if err := k.CheckCommitment(k.Commitment()); err != nil {
		t.Error(err)
	}
	if err := testKey(t, 2, "values").CheckCommitment(k.Commitment()); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("other key: %v", err)
	}
}

func TestShortSecretsAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := New(make([]byte, KeySize-1), "values"); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("New: %v", err)
	}
	if _, err := Derive(make([]byte, KeySize-1), "seed"); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("Derive: %v", err)
	}
	secret := bytes.Repeat([]byte{1}, KeySize)
	a, _ := Derive(secret, "a")
	b, _ := Derive(secret, "b")
	if len(a) != KeySize || bytes.Equal(a, b) {
		t.Error("labels do not separate derived keys")
	}
}

// raw is a Key over the AES key itself, as the XAES-256-GCM vectors have it.
func raw(t *testing.T, key []byte) *Key {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return &Key{block: block, k1: subkey(block)}
}

// The two short vectors of the XAES-256-GCM specification, one for each value
// of the bit that decides CMAC's subkey.
func TestXAESVectors(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		key             byte
		ad, plain, want string
	}{
		{1, "", "XAES-256-GCM", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
		k := raw(t, bytes.Repeat([]byte{v.key}, KeySize))
		got := k.aead(nonce[:half]).Seal(nil, nonce[half:], []byte(v.plain), []byte(v.ad))
		if hex.EncodeToString(got) != v.want {
			t.Errorf("key %02x: %x, want %s", v.key, got, v.want)
		}
	}
}

// The specification's accumulated vector: 10,000 random inputs from SHAKE128.
func TestXAESAccumulated(t *testing.T) {
	t.Parallel()
	s, d := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	take := func(n int) []byte {
		p := make([]byte, n)
		_, _ = s.Read(p)
		return p
	}
	for range 10_000 {
		key := take(KeySize)
		nonce := take(nonceSize)
		plain := take(int(take(1)[0]))
		ad := take(int(take(1)[0]))
		_, _ = d.Write(raw(t, key).aead(nonce[:half]).Seal(nil, nonce[half:], plain, ad))
	}
	sum := make([]byte, 32)
	_, _ = d.Read(sum)
	if got := hex.EncodeToString(sum); got != "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939" {
		t.Errorf("accumulated %s", got)
	}
}

func FuzzOpen(f *testing.F) {
	k := testKey(f, 1, "values")
	f.Add(k.Seal(nil, []byte("tessera"), []byte("p")), []byte("p"))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, box, place []byte) {
		if got, err := k.Open(nil, box, place); err == nil && !bytes.Equal(place, []byte("p")) {
			t.Errorf("opened %q at %q", got, place)
		}
	})
}

func BenchmarkSeal64(b *testing.B) {
	k := testKey(b, 1, "values")
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		k.Seal(nil, p, nil)
	}
}
