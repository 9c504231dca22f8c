package mistakes_test

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

// keyMistakes are those with keys: of the KMC, and of supply groups.
func keyMistakes() []mistake {
	upload := func(file func(w *world) string) func(w *world) answer {
		return func(w *world) answer {
			return w.run(rig.Tenant, "ptokenadmin", "kmc", "upload-klf", w.file("bad.klf", file(w)))
		}
	}
	mailed := func(name string) func(w *world) string {
		return func(w *world) string { return w.read(w.r.Mail(name)) }
	}
	klf := mailed("good.klf")
	ptokenadmin := func(args ...string) func(w *world) answer {
		return func(w *world) answer { return w.run(rig.Tenant, "ptokenadmin", args...) }
	}
	return []mistake{
		{"upload a KLF for an older request", upload(mailed("older.klf")), refused, []string{
			"SM.3B.8: Bad VKLOADRESP: wrong timestamp (TVP) in VKLOADRESP_KMC; possible expired or out-of-order response"}},
		{"upload a KLF that was loaded before", upload(mailed("keys.klf")), refused, []string{"SM.3B.8: Bad VKLOADRESP"}},
		{"upload a KLF of another module", upload(func(w *world) string { return w.read(w.foreign.Mail("keys.klf")) }), refused, []string{"SM.3B.1: Bad VKLOADRESP: wrong module id"}},
		{"upload a truncated KLF", upload(func(w *world) string { k := klf(w); return k[:len(k)/2] }), usage, []string{"it is cut short"}},
		{"upload a KLF without its last key", upload(func(w *world) string {
			lines := strings.SplitAfter(klf(w), "\n")
			return strings.Join(append(append([]string{}, lines[:3]...), lines[4:]...), "")
		}), integrity, []string{"was changed on its way"}},
		{"upload a KLF with an edited record", upload(func(w *world) string { return strings.Replace(klf(w), "ULMFFFFFFFF", "ULMFFFFFFFE", 1) }), integrity, []string{"was changed on its way"}},
		{"upload a KLF with an edited record and a new check sum", upload(func(w *world) string {
			return editRecord(w, klf(w), "VK.WRAP.1", "ULMFFFFFFFF", "ULM0000FFFF")
		}), integrity, []string{"was changed on its way"}},
		{"upload a KLF with a forged response", upload(func(w *world) string { return forge(w, klf(w)) }), refused, []string{"SM.3B.9: Bad VKLOADRESP: key confirmation failed"}},
		{"upload a KLF of the first edition", upload(func(*world) string { return "95001234567890ABCDEFGH\n95201234\n" }), refused, []string{"key load file of STS Edition 1", "Generate a VKLOADREQ"}},
		{"upload a request instead of a KLF", upload(mailed("good.vkloadreq")), usage, []string{"no line", "BEGIN STS KLF"}},
		{"upload an unapproved KMC key", func(w *world) answer {
			return w.run(rig.Tenant, "ptokenadmin", "kmc", "upload-key", w.r.Mail("kmc.pub"))
		}, refused, []string{"is not approved", "ptoken.allowUnapprovedKmcPubkeys"}},
		{"upload an edited KMC key", func(w *world) answer {
			return w.run(rig.Tenant, "ptokenadmin", "kmc", "upload-key", w.file("kmc.pub", strings.Replace(w.read(w.r.Mail("kmc.pub")), "KPN1", "KPN2", 1)))
		}, usage, []string{"wrong CRC"}},
		{"ask an unapproved KMC for keys", func(w *world) answer {
			return w.run(rig.Tenant, "ptokenadmin", "kmc", "generate-request", "--out", w.t.TempDir()+"/request", centre)
		}, refused, []string{"is not approved and the preference ptoken.allowUnapprovedKmcPubkeys is False"}},
		{"ask an unknown KMC for keys", ptokenadmin("kmc", "generate-request", "NOBODY"), notFound, []string{`no public key of KMC "NOBODY"`}},
		{"load all keys of an unknown KMC", ptokenadmin("kmc", "load-all", "NOBODY"), notFound, []string{`no key load file of KMC "NOBODY"`}},
		{"end a session that is not open", ptokenadmin("kmc", "end-session", "--yes", centre), refused, []string{"KMC_KEY_STATE_ERROR (code 26)"}},
		{"show a key that is not there", ptokenadmin("vk", "show", nobody, "1"), notFound, []string{"no vending key for SGC 654321 KRN 1"}},
		{"load a key that no KLF has", ptokenadmin("vk", "load", nobody, "1"), notFound, []string{"no vending key for SGC 654321 KRN 1"}},
		{"delete a key that is not there", ptokenadmin("vk", "delete", "--yes", nobody, "1"), notFound, []string{"no vending key for SGC 654321 KRN 1"}},
		{"name no supply group", ptokenadmin("vk", "show", "12345678", "1"), usage, []string{"is no number of at most 6 digits"}},
		{"load a licence that is none", func(w *world) answer {
			return w.run(rig.Tenant, "ptokenadmin", "license", "load", w.file("licence", "START-TX-LICENCE\nAAAA\nEND-TX-LICENCE\n"))
		}, usage, []string{"INVALID_INSTRUCTION (code 87)", "BEGIN STS SM LICENSE"}},
		{"answer an edited key request", func(w *world) answer {
			return w.centre("answer", "--out", w.t.TempDir()+"/klf", "--request",
				w.file("request", strings.Replace(w.read(w.r.Mail("good.vkloadreq")), "KPN1", "KPN2", 1)))
		}, usage, []string{"wrong CRC"}},
		{"answer a key request of an unknown module", func(w *world) answer {
			return w.centre("answer", "--out", w.t.TempDir()+"/klf", "--request", w.foreign.Mail("vkloadreq.txt"))
		}, notFound, []string{"does not know module"}},
		{"introduce an edited module to the KMC", func(w *world) answer {
			return w.centre("module", "add", "--file", w.file("module", strings.Replace(w.read(w.r.Mail("module.pub")), "STS64V10", "STS64V11", 1)))
		}, usage, []string{"wrong CRC"}},
	}
}

// centre is the KMC's tool.
func (w *world) centre(args ...string) answer {
	w.t.Helper()
	n := 1
	if args[0] == "module" {
		n = 2
	}
	args = append(append(append([]string{}, args[:n]...), "--dir", w.r.Path("kmc", "centre")), args[n:]...)
	return w.run(rig.KMC, "kmc", args...)
}

var recordCRC = regexp.MustCompile(`;CRC[0-9A-F]{4}$`)

// editRecord edits the first record of a type, with the right check sum of its own.
func editRecord(w *world, text, kind, from, to string) string {
	w.t.Helper()
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, kind) {
			continue
		}
		edited := strings.Replace(line, from, to, 1)
		if edited == line {
			w.t.Fatalf("%s has no %s: %s", kind, from, line)
		}
		lines[i] = withCRC(edited)
		return strings.Join(lines, "\n")
	}
	w.t.Fatalf("no record %s in\n%s", kind, text)
	return ""
}

// withCRC gives a record the check sum of what stands before it.
func withCRC(record string) string {
	body := recordCRC.ReplaceAllString(record, ";")
	return fmt.Sprintf("%sCRC%04X", body, keyload.CRC16([]byte(body)))
}

// forge gives a KLF a response that its KMC did not make, with every check sum
// that needs no key.
func forge(w *world, text string) string {
	w.t.Helper()
	klf, err := keyload.ParseKLF(text)
	if err != nil {
		w.t.Fatal(err)
	}
	const mac = ";MAC"
	before, after, found := strings.Cut(klf.Response, mac)
	if !found {
		w.t.Fatalf("no MAC in %s", klf.Response)
	}
	first := "0"
	if after[0] == '0' {
		first = "1"
	}
	klf.Response = withCRC(before + mac + first + after[1:])
	return klf.Text()
}
