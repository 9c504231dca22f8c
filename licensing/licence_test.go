package licensing_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
)

const esn = "0123-4567-89AB"

func signer(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func licence(t testing.TB, kind licensing.Type, value string) licensing.Licence {
	t.Helper()
	l := licensing.Licence{Type: kind, ESN: esn, Serial: "A1", Issued: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	if err := l.ParseValue(value); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLicenceText(t *testing.T) {
	t.Parallel()
	l := licence(t, licensing.MaxActiveVCMs, "21")
	text, err := l.Marshal()
	const want = "tesserae licence\nType: max-active-vcms\nESN: 0123-4567-89AB\nValue: 21\nSerial: A1\nIssued: 2026-03-01T00:00:00Z\n"
	if err != nil || string(text) != want {
		t.Errorf("%q, %v", text, err)
	}
	l = licence(t, licensing.Feature, "STSEA11|FastRandom")
	if text, err = l.Marshal(); err != nil || !strings.Contains(string(text), "Value: FastRandom|STSEA11\nWord: 04100000\n") {
		t.Errorf("%q, %v", text, err)
	}
}

func TestLicenceRoundTrip(t *testing.T) {
	t.Parallel()
	root := signer(t, 1)
	for _, l := range []licensing.Licence{
		licence(t, licensing.MaxActiveVCMs, "1000"),
		licence(t, licensing.Feature, "STSEA11"),
		licence(t, licensing.SpeedUpgrade, "HSMSpeed2"),
	} {
		file, err := l.Sign(root)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := licensing.ReadLicence(file, root.PublicKey(), esn); err != nil || got != l {
			t.Errorf("%+v became %+v, %v", l, got, err)
		}
		if got, err := licensing.InspectLicence(file); err != nil || got != l {
			t.Errorf("%+v became %+v, %v", l, got, err)
		}
		if _, err := licensing.ReadLicence(file, root.PublicKey(), "FFFF-FFFF-FFFF"); !errkind.Is(err, errkind.Refused) || !strings.Contains(err.Error(), esn) {
			t.Errorf("another unit: %v", err)
		}
		if _, err := licensing.ReadLicence(file, signer(t, 2).PublicKey(), esn); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("another maker: %v", err)
		}
		edited := bytes.Replace(file, []byte("Serial: A1"), []byte("Serial: A2"), 1)
		if _, err := licensing.ReadLicence(edited, root.PublicKey(), esn); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("edited: %v", err)
		}
	}
}

func TestSignedButWrongLicences(t *testing.T) {
	t.Parallel()
	root := signer(t, 1)
	head := "tesserae licence\nType: %s\nESN: 0123-4567-89AB\nValue: %s\n%sSerial: A1\nIssued: 2026-03-01T00:00:00Z\n"
	for what, text := range map[string]string{
		"unknown type":     fmt.Sprintf(head, "vip", "1", ""),
		"zero VCMs":        fmt.Sprintf(head, "max-active-vcms", "0", ""),
		"too many VCMs":    fmt.Sprintf(head, "max-active-vcms", "1001", ""),
		"padded number":    fmt.Sprintf(head, "max-active-vcms", "021", ""),
		"no feature":       fmt.Sprintf(head, "feature", "00000000", "Word: 00000000\n"),
		"other order":      fmt.Sprintf(head, "feature", "STSEA11|FastRandom", "Word: 04100000\n"),
		"word contradicts": fmt.Sprintf(head, "feature", "STSEA11", "Word: FFFFFFFF\n"),
		"word missing":     fmt.Sprintf(head, "feature", "STSEA11", ""),
		"speed as feature": fmt.Sprintf(head, "feature", "HSMSpeed2", "Word: 00008000\n"),
		"feature as speed": fmt.Sprintf(head, "speed", "STSEA11", "Word: 04000000\n"),
		"two speeds":       fmt.Sprintf(head, "speed", "HSMSpeed0|HSMSpeed2", "Word: 00008400\n"),
		"extra field":      fmt.Sprintf(head, "max-active-vcms", "2", "Note: x\n"),
		"a request":        "tesserae tenant request\nType: x\n",
		"bad ESN":          strings.Replace(fmt.Sprintf(head, "max-active-vcms", "2", ""), esn, "1", 1),
		"bad date":         strings.Replace(fmt.Sprintf(head, "max-active-vcms", "2", ""), "2026-03-01T", "yesterday", 1),
	} {
		file, err := armor.Sign([]byte(text), root, licensing.Namespace)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := licensing.ReadLicence(file, root.PublicKey(), esn); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestEffective(t *testing.T) {
	t.Parallel()
	const factory = licensing.STSVending
	vcms := func(n string) licensing.Licence { return licence(t, licensing.MaxActiveVCMs, n) }
	for what, tc := range map[string]struct {
		factory         licensing.Features
		licences        []licensing.Licence
		active, created int
		features        licensing.Features
	}{
		"bare":               {0, nil, 1, 1, licensing.BuiltIn | licensing.HSMSpeed0},
		"factory":            {factory | licensing.HSMSpeed2, nil, 1, 1, licensing.BuiltIn | factory | licensing.HSMSpeed2},
		"base speed":         {factory, []licensing.Licence{vcms("3")}, 3, 5, licensing.BuiltIn | factory | licensing.HSMSpeed0},
		"mid speed":          {licensing.HSMSpeed1, []licensing.Licence{vcms("3")}, 3, 1000, licensing.BuiltIn | licensing.HSMSpeed1},
		"high speed":         {licensing.HSMSpeed2, []licensing.Licence{vcms("3")}, 3, 1000, licensing.BuiltIn | licensing.HSMSpeed2},
		"the last counts":    {licensing.HSMSpeed2, []licensing.Licence{vcms("21"), vcms("2")}, 2, 1000, licensing.BuiltIn | licensing.HSMSpeed2},
		"features add up":    {factory, []licensing.Licence{licence(t, licensing.Feature, "STSEA11"), licence(t, licensing.Feature, "FastRandom")}, 1, 1, licensing.BuiltIn | factory | licensing.STSEA11 | licensing.FastRandom | licensing.HSMSpeed0},
		"speed upgrade":      {factory, []licensing.Licence{vcms("7"), licence(t, licensing.SpeedUpgrade, "HSMSpeed1")}, 7, 1000, licensing.BuiltIn | factory | licensing.HSMSpeed1},
		"speed never sinks ": {licensing.HSMSpeed2, []licensing.Licence{licence(t, licensing.SpeedUpgrade, "HSMSpeed0")}, 1, 1, licensing.BuiltIn | licensing.HSMSpeed2},
	} {
		want := licensing.Entitlement{Features: tc.features, MaxActive: tc.active, MaxCreated: tc.created}
		if got := licensing.Effective(tc.factory, tc.licences); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
}

func FuzzInspectLicence(f *testing.F) {
	var signature []byte
	for _, l := range []licensing.Licence{licence(f, licensing.MaxActiveVCMs, "21"), licence(f, licensing.Feature, "STSEA11"), licence(f, licensing.SpeedUpgrade, "HSMSpeed2")} {
		file, err := l.Sign(signer(f, 1))
		if err != nil {
			f.Fatal(err)
		}
		message, sig, err := armor.Split(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
		signature = sig
	}
	// InspectLicence does not verify: any well-formed signature lets the text through.
	f.Fuzz(func(t *testing.T, message []byte) {
		l, err := licensing.InspectLicence(append(bytes.Clone(message), signature...))
		if err != nil {
			return
		}
		if text, err := l.Marshal(); err != nil || !bytes.Equal(message, text) {
			t.Fatalf("%q was accepted but prints as %q (%v)", message, text, err)
		}
	})
}
