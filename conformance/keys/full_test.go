package keys_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

const registers = 999

type listedKey struct {
	SGC      int    `json:"sgc"`
	Register int    `json:"register"`
	Reason   string `json:"vend_reason"`
}

func (p *platform) keys(flags ...string) (out []listedKey) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.tenant(append([]string{"vk", "list", "--json"}, flags...)...)), &out); err != nil {
		p.t.Fatal(err)
	}
	return out
}

// A KMC has one key more than the module has registers: all others load, the
// last one fails as the guide says, and loads by itself once another is deleted.
func TestMoreKeysThanRegisters(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "100001", DKG: "04", Name: "First"}})
	p.addGroups(100002, registers) // 1000 in all
	p.tenant("kmc", "upload-klf", p.answer("all.klf"))
	if n := len(p.keys("--all")); n != registers+1 {
		t.Fatalf("the file brought %d keys", n)
	}
	began := time.Now()
	said := p.terminal(exitLimit, "ptokenadmin kmc load-all "+centre)
	t.Logf("%d keys were loaded in %s", registers, time.Since(began).Round(time.Millisecond))
	if !strings.Contains(said, "Failed to load all VKs: STS API error VK_REG_NOT_FOUND_ERROR (code 28); 999 keys were loaded, 1 were not") {
		t.Errorf("load-all said %q", said)
	}
	if n := strings.Count(said, "loading vending keys of "+centre); n < 10 {
		t.Errorf("load-all showed progress %d times: %q", n, said)
	}
	if n := len(p.keys()); n != registers {
		t.Errorf("%d keys are in the module", n)
	}
	missing := 0
	for _, k := range p.keys("--all") {
		if k.Register == 0 {
			missing = k.SGC
		}
	}
	sgc := strconv.Itoa(missing)
	p.refused(exitLimit, "STS API error VK_REG_NOT_FOUND_ERROR (code 28)", "vk", "load", sgc, "1")
	p.tenant("vk", "delete", "--yes", "100500", "1")
	p.tenant("vk", "load", sgc, "1")
	p.refused(exitLimit, "(code 28)", "vk", "load", "100500", "1")
	p.tenant("kmc", "end-session", "--yes", centre)
	// What is loaded can be used, what is not cannot be any more.
	p.refused(exitRefused, "KMC_KEY_STATE_ERROR (code 26)", "vk", "load", "100500", "1")
	accounts, err := p.Accounts(sgc, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.vcm.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tokens, err := c.API.IssueCreditToken(t.Context(), "the-last-key", c.Token, accounts[0].Config, 0, 10, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := accounts[0].Meter.Enter(tokens[0].TokenDec, time.Now()); err != nil || !r.Accepted {
		t.Errorf("the meter says %s, %v", r, err)
	}
}

// The smaller family of modules has 25 registers.
func TestSmallModule(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "100001", DKG: "04", Name: "First"}},
		func(r *rig.Rig) { r.InitFlags = []string{"--hardware", "TSM250E1"} })
	p.addGroups(100002, 29)
	p.tenant("kmc", "upload-klf", p.answer("all.klf"))
	said := p.refused(exitLimit, "VK_REG_NOT_FOUND_ERROR (code 28)", "kmc", "load-all", centre)
	if !strings.Contains(said, "25 keys were loaded, 5 were not") {
		t.Errorf("load-all said %q", said)
	}
	if info, _ := p.status(); info["ex.Registers"] != "25" || info["ex.RegistersUsed"] != "25" || info["HardwareId"] != "TSM250E1" {
		t.Errorf("status %v", info)
	}
}

// terminal runs a command of the tenant's on a terminal, as a person does.
func (p *platform) terminal(code int, command string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), "script", "-qec", filepath.Join(binaries.Dir(p.t), command), "/dev/null")
	cmd.Env, cmd.Dir = append(p.Env(rig.Tenant), "TERM=xterm"), p.Path(string(rig.Tenant))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		p.t.Fatalf("this test needs script (Debian package bsdutils): %v", err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("%s ended with %d instead of %d: %s", command, got, code, out)
	}
	return string(out)
}

const outdated = "SM.3B.8: Bad VKLOADRESP: wrong timestamp (TVP) in VKLOADRESP_KMC; possible expired or out-of-order response"

// An answer to a request that another one followed is refused with the guide's
// text, by the tool and byte for byte by the low-level API; the answer to the
// newest request loads. Files of other kinds are told apart.
func TestOutdatedAndForeignFiles(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "Only"}})
	old := p.answer("old.klf")
	p.request()
	p.refused(exitRefused, outdated, "kmc", "upload-klf", old)
	tcp := dialTCP(t, p.endpoint("smapi"))
	if line, err := tcp.line("SM?KRP" + parseKLF(t, old).Response + "~"); err != nil || line != "SM!KREEP"+outdated+"~AF0A" {
		t.Errorf("KR: %q, %v", line, err)
	}
	write := func(name, text string) string {
		file := p.Mail(name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	legacy := write("legacy.klf", "95000289050716STS04A600123456789ABCDEF123456\r\n9520VUDK\r\n")
	p.refused(exitRefused, "this is a key load file of STS Edition 1 (records 9500 and 9520)", "kmc", "upload-klf", legacy)
	write("vkloadreq.txt", mailed(read(t, p.Mail("vkloadreq.txt")))) // the KMC gets it by e-mail, too
	good := p.answer("new.klf")
	text := read(t, good)
	p.refused(exitIntegrity, "", "kmc", "upload-klf", write("changed.klf", strings.Replace(text, "SGNOnly", "SGNonly", 1)))
	p.refused(exitUsage, "", "kmc", "upload-klf", write("request.klf", read(t, p.Mail("vkloadreq.txt"))))
	p.tenant("kmc", "upload-klf", write("mail.klf", mailed(text)))
	p.refused(exitRefused, "KMC_KEY_STATE_ERROR (code 26)", "kmc", "upload-klf", good) // answered already
	p.tenant("kmc", "load-all", centre)
	p.tenant("kmc", "end-session", centre)
	if keys := p.keys(); len(keys) != 1 || keys[0].Reason != "" {
		t.Errorf("keys %+v", keys)
	}

	// A KMC key that is no KMC key, and one that is not in force.
	for _, c := range []struct{ field, value, status, text string }{
		{"QSV", "00", "EE", "SM.1.3: Bad KMC PUBKEY: invalid point"},
		{"ACT", "20990101", "43", ""}, {"EXP", "20200101", "41", ""}, {"CRV", "P256", "EE", "SM.1.2: Bad KMC PUBKEY: unsupported curve P256"},
	} {
		rec := p.kmcKey().Record()
		for i := range rec.Fields {
			if rec.Fields[i].Tag == c.field {
				rec.Fields[i].Value = c.value
			}
		}
		status, v := tcp.call("KC", "P"+rec.String())
		if status != c.status || c.text != "" && (len(v) != 1 || v[0] != c.text) {
			t.Errorf("KC with %s %s: %s %v", c.field, c.value, status, v)
		}
	}
}

// mailed is a file's text as a mailer forwards it: wrapped, quoted, between other
// text, with CR.
func mailed(text string) string {
	out := "Dear tenant,\r\n\r\n"
	for line := range strings.Lines(text) {
		for line = strings.TrimSpace(line); len(line) > 76; line = line[76:] {
			out += "> " + line[:76] + " \r\n"
		}
		out += "> " + line + "\r\n"
	}
	return out + "\r\nYours\r\n"
}

func (p *platform) kmcKey() keyload.KMCPublicKey {
	p.t.Helper()
	key, err := keyload.ParseKMCPublicKeyText(read(p.t, p.Mail("kmc.pub")))
	if err != nil {
		p.t.Fatal(err)
	}
	return key
}
