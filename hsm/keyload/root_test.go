package keyload

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
)

func TestRoot(t *testing.T) {
	t.Parallel()
	text := func(c elliptic.Curve) string {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text, err := FormatRoot(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good := text(elliptic.P384())
	root, err := ParseRoot("From: the root\n\n" + good + "regards\n")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := FormatRoot(root); err != nil || again != good || len(RootFingerprint(root)) != 64 {
		t.Errorf("%q, %v", again, err)
	}
	for name, bad := range map[string]string{
		"empty": "", "curve": text(elliptic.P256()), "two": good + good,
		"private": strings.ReplaceAll(good, "PUBLIC", "PRIVATE"), "cut": strings.Replace(good, "M", "", 1),
	} {
		if _, err := ParseRoot(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
