// Package keys_test takes the security module of a whole platform through key
// management and vending: by the tenant's tool, by a client of the low-level API
// that was written from its description alone, over TCP and over OpenSSH, and by
// the token service, with the module killed while it works.
package keys_test

import (
	"crypto/rand"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

var (
	kills = flag.Int("keys.kills", 6, "how often the module is killed while it loads keys and vends")
	seed  = flag.Uint64("keys.seed", 0, "seed of the random choices; 0 draws one")

	binaries rigtest.Binaries
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(binaries.Main(m))
}

const centre = "TEST-KMC"

// Exit codes of the tools.
const (
	exitUsage     = 2
	exitRefused   = 3
	exitLimit     = 6
	exitIntegrity = 7
)

// platform is a VCM that its tenant has enrolled and that has no keys yet, with
// a KMC that knows it.
type platform struct {
	t *testing.T
	*rig.Rig
	vcm *rig.VCM
}

// newPlatform makes one; the KMC has the groups and they are authorised.
func newPlatform(t *testing.T, groups []rig.SupplyGroup, change ...func(*rig.Rig)) *platform {
	t.Helper()
	p := &platform{t: t, Rig: binaries.New(t)}
	for _, c := range change {
		c(p.Rig)
	}
	v, err := p.Hosted(t.Context(), rig.Plan{Name: "keys", Request: []string{"--autostart"}})
	if err != nil {
		t.Fatal(err)
	}
	p.vcm = v
	for _, step := range []func() error{
		func() error { return p.Enrol(t.Context(), v) },
		func() error { return p.Users(t.Context(), v) },
		func() error { return p.KMC(t.Context(), groups...) },
		func() error { return p.KeyRequest(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	p.kmcRun("authorise", "--module", p.module(), "--all")
	return p
}

// module is the module's number.
func (p *platform) module() string {
	p.t.Helper()
	m, err := p.Module()
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *platform) must(role rig.Role, tool string, args ...string) string {
	p.t.Helper()
	out, err := p.Run(p.t.Context(), role, tool, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// tenant runs ptokenadmin.
func (p *platform) tenant(args ...string) string {
	p.t.Helper()
	return p.must(rig.Tenant, "ptokenadmin", args...)
}

// refused runs ptokenadmin, which has to end with this code and say all of this.
func (p *platform) refused(code int, says string, args ...string) string {
	p.t.Helper()
	out, err := p.Try(p.t.Context(), rig.Tenant, "ptokenadmin", args...)
	if err != nil {
		p.t.Fatal(err)
	}
	if out.Code != code || !strings.Contains(out.All, says) {
		p.t.Errorf("ptokenadmin %s ended with %d instead of %d and said %q instead of %q", strings.Join(args, " "), out.Code, code, out.All, says)
	}
	return out.All
}

func (p *platform) kmcRun(verb string, args ...string) string {
	p.t.Helper()
	words := append(strings.Fields(verb), "--dir", p.Path("kmc", "centre"))
	return p.must(rig.KMC, "kmc", append(words, args...)...)
}

// answer has the KMC answer the newest request and returns the file.
func (p *platform) answer(name string) string {
	p.t.Helper()
	file := p.Mail(name)
	p.kmcRun("answer", "--request", p.Mail("vkloadreq.txt"), "--out", file)
	return file
}

// request makes a new VKLOADREQ.
func (p *platform) request() {
	p.t.Helper()
	p.tenant("kmc", "generate-request", "--force", "--out", p.Mail("vkloadreq.txt"), centre)
}

// load uploads the KMC's answer, loads everything and ends the session.
func (p *platform) load() {
	p.t.Helper()
	p.tenant("kmc", "upload-klf", p.answer("keys.klf"))
	p.tenant("kmc", "load-all", centre)
	p.tenant("kmc", "end-session", centre)
}

// status is what 'ptokenadmin sm status' says.
func (p *platform) status() (info map[string]string, alerts []string) {
	p.t.Helper()
	var st struct {
		Info   map[string]string
		Alerts []string
	}
	if err := json.Unmarshal([]byte(p.tenant("sm", "status", "--json")), &st); err != nil {
		p.t.Fatal(err)
	}
	return st.Info, st.Alerts
}

// endpoint is where the VCM has a service.
func (p *platform) endpoint(service string) string {
	p.t.Helper()
	var vcms []struct {
		UUID      string
		Endpoints map[string]string
	}
	if err := json.Unmarshal([]byte(p.must(rig.Provider, "vcmadmin", "list", "--json")), &vcms); err != nil {
		p.t.Fatal(err)
	}
	for _, v := range vcms {
		if v.UUID == p.vcm.UUID && v.Endpoints[service] != "" {
			return v.Endpoints[service]
		}
	}
	p.t.Fatalf("the VCM has no endpoint of %s in %v", service, vcms)
	return ""
}

// openKMC opens the KMC's folder.
func (p *platform) openKMC() *kmc.KMC {
	p.t.Helper()
	k, err := kmc.Open(p.Path("kmc", "centre"), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return k
}

// addGroups gives the KMC groups like its first one with these codes.
func (p *platform) addGroups(from, n int) {
	p.t.Helper()
	k := p.openKMC()
	first := k.Groups()[0]
	var more []kmc.Group
	for i := range n {
		g := first
		g.SGC, g.Key = from+i, ""
		more = append(more, g)
	}
	if err := k.AddGroups(more); err != nil {
		p.t.Fatal(err)
	}
	p.kmcRun("authorise", "--module", p.module(), "--all")
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parseKLF(t *testing.T, path string) keyload.KLF {
	t.Helper()
	klf, err := keyload.ParseKLF(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return klf
}
