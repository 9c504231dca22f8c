package keyload

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func seeds(f *testing.F) map[string]string {
	f.Helper()
	raw, err := os.ReadFile("testdata/key-management.json")
	if err != nil {
		f.Fatal(err)
	}
	var top struct {
		KeyManagement map[string]string `json:"keyManagement"`
	}
	if err := json.Unmarshal(raw, &top); err != nil {
		f.Fatal(err)
	}
	return top.KeyManagement
}

// What the parser accepts it prints again, byte for byte.
func FuzzParseRecord(f *testing.F) {
	v := seeds(f)
	for _, name := range []string{"VKLOAD.REQ.1", "VKLOAD.RSP.1", "VK.WRAP.1"} {
		f.Add(v[name])
	}
	f.Add(withCRC("A.1;"))
	f.Add(withCRC("A.1;SGNx;"))
	f.Fuzz(func(t *testing.T, text string) {
		rec, err := ParseRecord(text)
		if err == nil && rec.String() != text {
			t.Errorf("%q is printed as %q", text, rec)
		}
		// Give the fuzzer a way past the CRC.
		fixed := withCRC(text)
		if rec, err := ParseRecord(fixed); err == nil && rec.String() != fixed {
			t.Errorf("%q is printed as %q", fixed, rec)
		}
	})
}

// No reader of a record panics, and each prints what it accepted.
func FuzzTypedRecords(f *testing.F) {
	v := seeds(f)
	kc := v["kc_req"]
	f.Add(kc[6 : len(kc)-5])
	for _, name := range []string{"VKLOAD.REQ.1", "VKLOAD.RSP.1", "VK.WRAP.1"} {
		f.Add(v[name])
	}
	f.Add(TransactionLicence{ModuleID: "89051616", Nonce: make([]byte, 8), Transactions: 5}.Record().String())
	f.Fuzz(func(t *testing.T, body string) {
		for _, text := range []string{body, withCRC(body)} {
			if k, err := ParseKMCPublicKey(text); err == nil && k.Record().String() != text {
				t.Errorf("KMC key %q is printed as %q", text, k.Record())
			}
			if p, err := ParseResponse(text); err == nil && p.Record().String() != text {
				t.Errorf("response %q is printed as %q", text, p.Record())
			}
			if q, err := ParseRequestText(text); err == nil && q.Text() != strings.TrimSpace(text) && !strings.Contains(text, "-----") {
				t.Errorf("request %q is printed as %q", text, q.Text())
			}
			if l, err := ParseTransactionLicence(text); err == nil && l.Record().String() != text {
				t.Errorf("licence %q is printed as %q", text, l.Record())
			}
			if rec, err := ParseWrappedKey(text); err == nil {
				_, _ = Attributes(rec)
				if Authenticate(rec, "0001", make([]byte, 24)) == nil {
					t.Errorf("%q is authentic under a key of zeros", text)
				}
			}
		}
	})
}

func FuzzParseKLF(f *testing.F) {
	v := seeds(f)
	rec, err := ParseWrappedKey(v["VK.WRAP.1"])
	if err != nil {
		f.Fatal(err)
	}
	k := KLF{KMC: "TEST-KMC", ModuleID: "89051616", TVP: "20251120120000", Response: v["VKLOAD.RSP.1"], Keys: []Record{rec}}
	f.Add(k.Text())
	f.Add("95000289050716STS04A600123456789ABCDEF123456\n")
	f.Add(quote(hard(k.Text(), 70), "> "))
	f.Add(Armor(BlockKLF, "x"))
	f.Add(Armor(BlockLicence, "x", "y"))
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseKLF(text); err == nil {
			again, err := ParseKLF(k.Text())
			if err != nil || again.Text() != k.Text() {
				t.Errorf("what was parsed does not parse: %v", err)
			}
		}
		_, _, _ = ParseLicenceText(text)
		_, _ = ParseKMCPublicKeyText(text)
		_, _ = ParseSMPublicKeyText(text)
		_, _ = ParseApprovals(text, nil)
		_, _ = ParseRoot(text)
	})
}
