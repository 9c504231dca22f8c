package keyload

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// vectorKLF is a key load file with the vector's response and key.
func vectorKLF(t *testing.T) KLF {
	t.Helper()
	v, _ := readVectors(t)
	rec, err := ParseWrappedKey(v["VK.WRAP.1"])
	if err != nil {
		t.Fatal(err)
	}
	return KLF{KMC: "TEST-KMC", ModuleID: "89051616", TVP: "20251120120000", Response: v["VKLOAD.RSP.1"], Keys: []Record{rec}}
}

func TestKLFRoundTrip(t *testing.T) {
	t.Parallel()
	text := vectorKLF(t).Text()
	mail := "Subject: your keys\r\n\r\nHello,\r\n" + strings.ReplaceAll(text, "\n", " \r\n\r\n") + "\r\n-- \r\nthe KMC"
	for name, in := range map[string]string{"file": text, "e-mail": mail} {
		k, err := ParseKLF(in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if k.Text() != text {
			t.Errorf("%s: printed as\n%s", name, k.Text())
		}
	}
}

// Whatever is changed in a key load file is noticed.
func TestKLFDamage(t *testing.T) {
	t.Parallel()
	good := vectorKLF(t).Text()
	lines := strings.SplitAfter(good, "\n")
	join := func(l []string) string { return strings.Join(l, "") }
	replace := func(i int, with string) string {
		l := append([]string(nil), lines...)
		l[i] = with
		return join(l)
	}
	header := func(k KLF) string { return strings.SplitAfter(k.Text(), "\n")[1] }
	other := vectorKLF(t)
	other.KMC = "OTHER"
	two := vectorKLF(t)
	two.Keys = append(two.Keys, two.Keys[0])
	foreign := vectorKLF(t)
	foreign.ModuleID = "11111111"
	for name, c := range map[string]struct {
		text string
		kind errkind.Kind
		says string
	}{
		"nothing":             {"", errkind.Invalid, "BEGIN STS KLF"},
		"no end line":         {join(lines[:len(lines)-2]), errkind.Invalid, "cut short"},
		"no end record":       {join(append(append([]string(nil), lines[:4]...), lines[5:]...)), errkind.Invalid, "last record"},
		"only guards":         {lines[0] + lines[5], errkind.Invalid, "cut short"},
		"two blocks":          {good + good, errkind.Invalid, "more than one"},
		"end before begin":    {lines[5] + good, errkind.Invalid, "before its BEGIN"},
		"header changed":      {replace(1, header(other)), errkind.Integrity, "changed on its way"},
		"header's CRC":        {replace(1, strings.Replace(lines[1], "TEST", "BEST", 1)), errkind.Invalid, "CRC"},
		"key missing":         {join(append(append([]string(nil), lines[:3]...), lines[4:]...)), errkind.Integrity, "changed on its way"},
		"other KMC":           {other.Text(), errkind.Integrity, "do not belong together"},
		"count of others":     {two.Text(), errkind.Integrity, "do not belong together"},
		"foreign module":      {foreign.Text(), errkind.Integrity, "do not belong together"},
		"larger than allowed": {strings.Repeat("x", maxText+1), errkind.Invalid, "longer than"},
	} {
		_, err := ParseKLF(c.text)
		if !errkind.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%v), want %v with %q", name, err, errkind.Of(err), c.kind, c.says)
		}
	}
}

// The file of the standard's first edition is recognised and refused.
func TestLegacyKLF(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"95000289050716STS04A600123456789ABCDEF123456\r\n9520A1010111010123456789ABCDEF\r\n",
		"Dear customer,\n\n  95000289050716STS04A600123456789ABCDEF123456\n",
		"9520A1010111010123456789ABCDEF",
	} {
		_, err := ParseKLF(text)
		if !errkind.Is(err, errkind.Refused) || !strings.Contains(err.Error(), "STS Edition 1") || !strings.Contains(err.Error(), "Generate a VKLOADREQ") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParseKLF("call 9500 for help"); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("a text about 9500: %v", err)
	}
	if _, err := ParseKLF("95000289050716STS04A60\n" + vectorKLF(t).Text()); err != nil {
		t.Errorf("a new file with an old one quoted: %v", err)
	}
}

func TestPublicKeyText(t *testing.T) {
	t.Parallel()
	v, _ := readVectors(t)
	line := v["kc_req"]
	record := line[6 : len(line)-5]
	k, err := ParseKMCPublicKey(record)
	if err != nil {
		t.Fatal(err)
	}
	if k.Record().String() != record || !k.ExpiresAt().Equal(time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("key %+v", k)
	}
	if again, err := ParseKMCPublicKeyText("hi\r\n" + k.Text()); err != nil || again.Record().String() != record {
		t.Errorf("text: %v", err)
	}
	if _, err := ParseKMCPublicKeyText(Armor(BlockKMCPublicKey, record, record)); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("two records: %v", err)
	}
	root, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if k.ApprovedBy(&root.PublicKey) || k.ApprovedBy(nil) {
		t.Error("an unsigned key is approved")
	}
	if err := k.Sign(root); err != nil {
		t.Fatal(err)
	}
	if signed, err := ParseKMCPublicKeyText(k.Text()); err != nil || !signed.ApprovedBy(&root.PublicKey) {
		t.Errorf("a signed key is not approved: %v", err)
	}
	k.KPN++
	if k.ApprovedBy(&root.PublicKey) {
		t.Error("a changed key is approved")
	}
	weak, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Sign(weak); err == nil {
		t.Error("a root on another curve signs")
	}
}

func TestModuleKeyText(t *testing.T) {
	t.Parallel()
	v, _ := readVectors(t)
	k := SMPublicKey{ModuleID: "89051616", SPN: 1, HardwareID: "TSM500I", FirmwareID: "STS64V10", Curve: CurveName, Point: unhex(t, v["Q_SM_static"])}
	for _, text := range []string{k.Text(), k.Record().String(), " " + k.Record().String() + "\r\n"} {
		if got, err := ParseSMPublicKeyText(text); err != nil || got.Record().String() != k.Record().String() {
			t.Errorf("%q: %v", text, err)
		}
	}
	for name, change := range map[string]func(*SMPublicKey){
		"module id": func(k *SMPublicKey) { k.ModuleID = "8905161" },
		"curve":     func(k *SMPublicKey) { k.Curve = "P521" },
		"point":     func(k *SMPublicKey) { k.Point = append([]byte{4}, make([]byte, 96)...) },
		"short":     func(k *SMPublicKey) { k.Point = k.Point[:96] },
		"signature": func(k *SMPublicKey) { k.Signature = []byte{1} },
	} {
		bad := k
		change(&bad)
		if _, err := ParseSMPublicKeyText(bad.Text()); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestApprovals(t *testing.T) {
	t.Parallel()
	v, _ := readVectors(t)
	line := v["kc_req"]
	k, err := ParseKMCPublicKey(line[6 : len(line)-5])
	if err != nil {
		t.Fatal(err)
	}
	root, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	list := Approvals{Issuer: "ROOT", Date: "20260101000000"}
	list.Approve(k)
	text, err := list.SignedText(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseApprovals(text, &root.PublicKey)
	if err != nil || got.Issuer != "ROOT" || !got.Approves(k) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := k.Sign(root); err != nil {
		t.Fatal(err)
	}
	if !got.Approves(k) {
		t.Error("the list does not approve the same key with a signature")
	}
	k.KPN = 2
	if got.Approves(k) {
		t.Error("the list approves another key")
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseApprovals(text, &other.PublicKey); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("another root: %v", err)
	}
	lines := strings.SplitAfter(text, "\n")
	if _, err := ParseApprovals(lines[0]+lines[1]+strings.Join(lines[3:], ""), &root.PublicKey); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("an entry taken out: %v", err)
	}
	if _, err := ParseApprovals(lines[0]+lines[4], &root.PublicKey); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("an empty list: %v", err)
	}
}

func TestLicenceText(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l := TransactionLicence{ModuleID: "89051616", Nonce: make([]byte, 8), Transactions: Unlimited}
	for _, until := range []time.Time{{}, time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)} {
		l.InhibitVend = until
		text, err := l.SignedText(key)
		if err != nil {
			t.Fatal(err)
		}
		record, signature, err := ParseLicenceText("see below\n" + text)
		if err != nil || !VerifyInstruction(&key.PublicKey, record, signature) {
			t.Fatalf("licence: %v", err)
		}
		got, err := ParseTransactionLicence(record)
		if err != nil || !got.InhibitVend.Equal(until) || got.Transactions != Unlimited || got.ModuleID != l.ModuleID {
			t.Errorf("%+v, %v", got, err)
		}
		signature[95] ^= 1
		if VerifyInstruction(&key.PublicKey, record, signature) || VerifyInstruction(nil, record, signature) {
			t.Error("a wrong signature is accepted")
		}
		if _, _, err := ParseLicenceText(Armor(BlockLicence, record)); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("a licence without signature: %v", err)
		}
	}
}
