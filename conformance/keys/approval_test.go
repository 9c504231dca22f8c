package keys_test

import (
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// A tenant that pins an approval root needs no preference that lets unapproved
// keys in: keys that the root signed or that its newest list names are taken,
// others are not, by the tool and by the low-level API alike.
func TestApprovedKMCKeys(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "Only"}})
	p.tenant("kmc", "delete-slot", "--yes", centre)
	p.tenant("pref", "set", "ptoken.allowUnapprovedKmcPubkeys", "false")
	tcp := dialTCP(t, p.endpoint("smapi"))
	record := p.kmcKey().Record().String()
	p.refused(exitRefused, "not approved", "kmc", "upload-key", p.Mail("kmc.pub"))
	if status, v := tcp.call("KC", "P"+record); status != "EE" || v[0] != "SM.1.4: Bad KMC PUBKEY: no approval signature" {
		t.Errorf("KC: %s %v", status, v)
	}

	newRoot := func(name string) (private, public string) {
		t.Helper()
		private, public = p.Path("kmc", name), p.Mail(name+".pem")
		p.must(rig.KMC, "kmc", "root", "init", "--key", private, "--out", public)
		return private, public
	}
	root, rootPublic := newRoot("root")
	other, otherPublic := newRoot("other")
	list := func(name, by string) string {
		t.Helper()
		file := p.Mail(name)
		p.must(rig.KMC, "kmc", "root", "approve", "--key", by, "--out", file, p.Mail("kmc.pub"))
		return file
	}
	good, foreign := list("approvals.txt", root), list("foreign.txt", other)
	p.refused(exitRefused, "no approval root is pinned", "kmc", "upload-approvals", good)
	p.tenant("kmc", "approval-root", "--pin", rootPublic)
	p.refused(exitIntegrity, "not signed by the approval root", "kmc", "upload-approvals", foreign)
	p.refused(exitRefused, "not approved", "kmc", "upload-key", p.Mail("kmc.pub"))
	if said := p.tenant("kmc", "upload-approvals", good); !strings.Contains(said, "TEST-KMC key 1") {
		t.Errorf("%q", said)
	}
	if said := p.tenant("kmc", "upload-key", p.Mail("kmc.pub")); !strings.Contains(said, "true") {
		t.Errorf("the key is not shown as approved: %q", said)
	}
	tcp.must(1, "KC", "P"+record)
	p.request()
	p.load()

	// Another root: the list is gone with the old one; a signed key needs none.
	p.tenant("kmc", "approval-root", "--yes", "--pin", otherPublic)
	p.refused(exitRefused, "not approved", "kmc", "generate-request", centre)
	p.kmcRun("pubkey", "--root-key", other, "--out", p.Mail("signed.pub"))
	p.tenant("kmc", "upload-key", p.Mail("signed.pub"))
	p.tenant("kmc", "generate-request", centre)
	p.kmcRun("pubkey", "--root-key", root, "--out", p.Mail("wrong.pub"))
	p.refused(exitRefused, "not approved", "kmc", "upload-key", p.Mail("wrong.pub"))
}

// A KMC that knows the modules' maker takes a module's key only with his word.
func TestModuleIsAttested(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "Only"}})
	esn, err := p.ESN()
	if err != nil {
		t.Fatal(err)
	}
	if said := p.kmcRun("module list"); !strings.Contains(said, esn) {
		t.Errorf("the KMC shows %q, not the unit %s", said, esn)
	}
	p.must(rig.Maker, "vendor", "root", "--dir", p.Path("maker", "another"))
	_, err = p.RunCode(t.Context(), exitIntegrity, rig.KMC, "kmc", "module", "add", "--dir", p.Path("kmc", "centre"), "--file", p.Mail("module.pub"),
		"--maker-root", p.Path("maker", "another", "root.pub"))
	if err != nil {
		t.Error(err)
	}
}
