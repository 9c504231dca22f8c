package mistakes_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
)

// Rival is another tenant of the same platform.
const Rival rig.Role = "rival"

const (
	group  = "123456" // whose keys are in the module
	nobody = "654321" // whose keys are not
	centre = "TEST-KMC"
)

// world is a platform on which mistakes are made.
type world struct {
	t       *testing.T
	r       *rig.Rig
	v       *rig.VCM
	foreign *rig.Rig // another maker's unit, another tenant
	other   *rig.VCM // its VCM

	resting string     // UUID of a VCM of the tenant's that does not run
	updater ssh.Signer // may use the platform's updater service, nothing else
	meter   string     // state file of a meter
}

func newWorld(t *testing.T) *world {
	t.Helper()
	groups := []rig.SupplyGroup{{SGC: group, DKG: "04", Name: "Mistakes"}}
	w := &world{t: t}
	// Where more VCMs are licensed, a bad request that is taken for a good one has
	// its effect.
	w.r, w.v = binaries.Full(t, rig.Plan{Name: "utility-a", Licences: []string{"max-active-vcms=3"}, Groups: groups})
	w.foreign, w.other = binaries.Full(t, rig.Plan{Name: "elsewhere", Groups: groups})
	w.prepare()
	return w
}

// prepare leaves a key request outstanding, with its answer and that to an older
// one in the mail, and everything else that the mistakes need.
func (w *world) prepare() {
	w.t.Helper()
	module, err := w.r.Module()
	if err != nil {
		w.t.Fatal(err)
	}
	w.must(rig.KMC, "kmc", "authorise", "--dir", w.r.Path("kmc", "centre"), "--module", module, "--all")
	for _, name := range []string{"older", "good"} {
		request, klf := w.r.Mail(name+".vkloadreq"), w.r.Mail(name+".klf")
		w.must(rig.Tenant, "ptokenadmin", "kmc", "generate-request", "--out", request, centre)
		w.must(rig.KMC, "kmc", "answer", "--dir", w.r.Path("kmc", "centre"), "--request", request, "--out", klf)
	}
	w.must(rig.Tenant, "ptokenadmin", "pref", "set", "ptoken.allowUnapprovedKmcPubkeys", "False")

	if w.updater, err = rig.NewKey(); err != nil {
		w.t.Fatal(err)
	}
	line := strings.Fields(rig.KeyLine(w.updater.PublicKey()))
	w.must(rig.Provider, "hsmadmin", "keys", "remote-set", "updater", line[0], line[1])

	key := w.r.Mail("vending-key")
	w.must(rig.KMC, "kmc", "key", "export", "--dir", w.r.Path("kmc", "centre"), "--sgc", group, "--krn", "1", "--bdt", "2014", "--out", key)
	w.meter = w.r.Path("customer", "meter")
	w.must(rig.Customer, "meter", "init", "--state", w.meter, "--drn", "01234567897", "--ea", "11", "--sgc", group, "--krn", "1", "--ti", "1",
		"--base-date", "2014", "--dkga", "04", "--vending-key-file", key)
	w.prepareUnits()
	// The rival has asked for a VCM and has not got one. He has his keys, and has
	// pinned the maker's root.
	w.must(Rival, "hsmadmin", "vcm", "create", "--request-file", w.r.Mail("rival.req"), "--name", "rival")
	if out := w.run(Rival, "hsmadmin", "vcm", "enroll", "--config", w.v.File, "--maker-root", w.r.MakerRoot()); out.code == done {
		w.t.Fatal("a tenant has enrolled another one's VCM")
	}
}

// prepareUnits makes a VCM that rests, and a unit that is not in use and whose
// warrant is not installed.
func (w *world) prepareUnits() {
	w.t.Helper()
	request, err := w.r.Request(w.t.Context(), "resting")
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := w.r.Create(w.t.Context(), request, "resting")
	if err != nil {
		w.t.Fatal(err)
	}
	w.resting = v.UUID
	w.must(rig.Provider, "vcmadmin", "stop", v.UUID)
	w.must(rig.Maker, "hsmd", "init", "--state", w.r.Path("second"))
	w.must(rig.Maker, "vendor", "warrant", "--dir", w.r.Path("maker", "keys"), "--request", w.r.Path("second", "identity-request"),
		"--out", w.r.Mail("second.warrant"))
}

func (w *world) must(role rig.Role, tool string, args ...string) {
	w.t.Helper()
	if _, err := w.r.Run(w.t.Context(), role, tool, args...); err != nil {
		w.t.Fatal(err)
	}
}

// run is a mistake that a tool answers.
func (w *world) run(role rig.Role, tool string, args ...string) answer {
	w.t.Helper()
	out, err := w.r.Try(w.t.Context(), role, tool, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{out.Code, out.All}
}

// file writes a bad file for the next mistake.
func (w *world) file(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// read is the content of a file that exists.
func (w *world) read(path string) string {
	w.t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(p)
}

// questions are how the state is read, and what passes without a mistake.
var questions = []struct {
	role    rig.Role
	command string
	passes  *regexp.Regexp
}{
	{rig.Provider, "vcmadmin list --json", nil},
	{rig.Provider, "hsmadmin keys show", nil},
	{rig.Tenant, "ptokenadmin kmc list --json", nil},
	{rig.Tenant, "ptokenadmin vk list --all --json", nil},
	// A wrong password is counted, and a sign-in noted.
	{rig.Tenant, "ptokenadmin user list --json", regexp.MustCompile(`"(failed_sign_ins|last_sign_in)": [^\n]*`)},
	{rig.Tenant, "ptokenadmin pref list --json", nil},
	{rig.Tenant, "ptokenadmin tls certificate export --json", nil},
}

// said is what the platform says of its state, none of which a mistake changes.
func (w *world) said(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, q := range questions {
		words := strings.Fields(q.command)
		text, err := w.r.Run(t.Context(), q.role, words[0], words[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		if q.passes != nil {
			text = q.passes.ReplaceAllString(text, "")
		}
		out[q.command] = text
	}
	text, err := w.foreign.Run(t.Context(), rig.Provider, "vcmadmin", "list", "--json")
	if err != nil {
		t.Fatal(err)
	}
	out["the other unit's VCMs"] = text
	return out
}

// goingOn are files of a unit that go on by themselves.
var goingOn = []string{"clock.json", "counters"}

// places are where people keep what they have.
var places = []string{"tenant/services", "rival/services", "provider/services", "kmc/centre", "customer", "maker/keys",
	"second", "unit/warrant", "unit/identity.json", "unit/keys", "unit/partitions"}

// kept is what is in these places, none of which a mistake changes.
func (w *world) kept(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, p := range places {
		out[p] = listing(t, w.r.Path(p))
	}
	return out
}

// listing is the names and contents of a folder, in short.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || slices.Contains(goingOn, d.Name()) {
			return err
		}
		p, err := os.ReadFile(path)
		if err == nil {
			fmt.Fprintf(&b, "%s %x\n", strings.TrimPrefix(path, dir), sha256.Sum256(p))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// nothingIssued checks in the VCM's log that no mistake made a token.
func (w *world) nothingIssued(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	out, err := w.r.Run(t.Context(), rig.Tenant, "hsmadmin", "vcm", "logs", "export", "--json", "--outdir", dir)
	if err != nil {
		t.Fatal(err)
	}
	var pieces []struct{ File string }
	if err := json.Unmarshal([]byte(out), &pieces); err != nil || len(pieces) == 0 {
		t.Fatalf("hsmadmin vcm logs export answered %q: %v", out, err)
	}
	unit, err := w.r.UnitKey()
	if err != nil {
		t.Fatal(err)
	}
	esn, err := w.r.ESN()
	if err != nil {
		t.Fatal(err)
	}
	entries := 0
	for _, p := range pieces {
		text := []byte(w.read(p.File))
		line, err := auditlog.Certificate(text)
		if err != nil {
			t.Fatal(err)
		}
		key, err := auditlog.CertifiedKey(line, unit, strings.ToLower(esn+"/"+w.v.UUID+"/auditlog"))
		if err != nil {
			t.Fatal(err)
		}
		v, err := auditlog.Verify(text, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range v.Records {
			entries++
			if strings.HasPrefix(r.Kind, "token.") {
				t.Errorf("entry %d: a mistake was answered with a token: %s %v", r.Seq, r.Kind, r.Detail)
			}
		}
	}
	if entries == 0 {
		t.Error("the log is empty")
	}
}

// keysStillLoad goes on with the key request that was outstanding all the time.
func (w *world) keysStillLoad(t *testing.T) {
	t.Helper()
	w.must(rig.Tenant, "ptokenadmin", "kmc", "upload-klf", w.r.Mail("good.klf"))
	w.must(rig.Tenant, "ptokenadmin", "kmc", "load-all", centre)
	w.must(rig.Tenant, "ptokenadmin", "kmc", "end-session", centre)
	w.must(rig.Vending, "vend", append(append([]string{"credit"}, w.v.Flags()...), "--drn", "01234567897", "--ea", "11", "--sgc", group,
		"--krn", "1", "--ti", "1", "--kwh", "1")...)
}
