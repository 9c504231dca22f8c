package kmc_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

var now = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func newKMC(t *testing.T) (*kmc.KMC, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "kmc")
	k, err := kmc.Init(dir, "TEST-KMC", now, now.AddDate(1, 0, 0), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k, dir
}

func group(sgc int) kmc.Group {
	return kmc.Group{SGC: sgc, KRN: 1, KTC: "VUDK", BDT: 2014, DKG: 4, KEN: 255, SBM: 0xFFFF, ULM: 5, CLM: keyload.Unlimited, ACT: now, Refresh: 30}
}

// What one process stored the next one finds, and nobody else reads it.
func TestState(t *testing.T) {
	t.Parallel()
	k, dir := newKMC(t)
	g, err := k.AddGroup(group(123456))
	if err != nil {
		t.Fatal(err)
	}
	again, err := kmc.Open(dir, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Find(123456, 1, 0); err != nil || got.Key != g.Key || len(g.Key) != 40 {
		t.Errorf("%+v, %v", got, err)
	}
	a, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := again.PublicKey(); err != nil || a.Record().String() != b.Record().String() {
		t.Errorf("another public key: %v", err)
	}
	file := filepath.Join(dir, "kmc.json")
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for text, kind := range map[string]errkind.Kind{"": errkind.Integrity, "{}": errkind.Integrity, `{"format":"x"}`: errkind.Integrity} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := kmc.Open(dir, rand.Reader); !errkind.Is(err, kind) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	k, _ := newKMC(t)
	if err := k.AddGroups([]kmc.Group{group(1), group(2), group(1)}); !errkind.Is(err, errkind.Refused) || len(k.Groups()) != 0 {
		t.Errorf("all or none: %d groups, %v", len(k.Groups()), err)
	}
	later := group(1)
	later.BDT = 2035
	if err := k.AddGroups([]kmc.Group{later, group(2), group(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Find(1, 1, 0); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("two keys with one name: %v", err)
	}
	if g, err := k.Find(1, 1, 2035); err != nil || g.BDT != 2035 {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := k.Find(3, 1, 0); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("no such key: %v", err)
	}
	before, err := k.Find(2, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	after, err := k.Change(2, 1, 0, func(g *kmc.Group) { g.ULM, g.Key, g.SGC, g.KTC = 9, strings.Repeat("00", 20), 7, "VDDK" })
	if err != nil || after.ULM != 9 || after.Key != before.Key || after.SGC != 2 || after.KTC != "VUDK" {
		t.Errorf("%+v, %v", after, err)
	}
	if _, err := k.Change(2, 1, 0, func(g *kmc.Group) { g.KEN = 256 }); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("%v", err)
	}
	if g, err := k.Find(2, 1, 0); err != nil || g.KEN != 255 {
		t.Errorf("a refused change stays: %+v, %v", g, err)
	}
}

// A 64-bit key is drawn with odd parity.
func TestDrawnKeyParity(t *testing.T) {
	t.Parallel()
	k, _ := newKMC(t)
	g := group(1)
	g.DKG = 2
	g, err := k.AddGroup(g)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Key) != 16 {
		t.Fatalf("key of %d digits", len(g.Key))
	}
	for i := 0; i < 16; i += 2 {
		ones := 0
		for _, c := range g.Key[i : i+2] {
			for v := strings.IndexRune("0123456789ABCDEF", c); v > 0; v >>= 1 {
				ones += v & 1
			}
		}
		if ones%2 == 0 {
			t.Errorf("octet %s has even parity", g.Key[i:i+2])
		}
	}
}
