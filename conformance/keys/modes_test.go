package keys_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
)

// A unit in CTS test mode makes the compliance tests' token, and says everywhere
// that it is no module to sell tokens with.
func TestTestModeIsVisible(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "201457", DKG: "04", Name: "CTS", Flags: []string{"--key", "ABABABABABABABAB949494949494949401234567"}}},
		func(r *rig.Rig) { r.UnitFlags = []string{"--cts"} })
	p.load()
	tcp := dialTCP(t, p.endpoint("smapi"))
	line, err := tcp.line("SM?VCN1~P600727000000000009~N1~N11~N2~N0~H0001~H014EEC~")
	if err != nil || line != "SM!VC00P32D98A5616345BE2E~P58625789986991357486~26E2" {
		t.Errorf("CTSA01 step 1: %q, %v", line, err)
	}
	if v := tcp.must(4, "QI"); !strings.HasSuffix(v[1], "-CTS") {
		t.Errorf("QI %v", v)
	}
	if request := read(t, p.Mail("vkloadreq.txt")); !strings.Contains(request, "-CTS;") {
		t.Errorf("the KMC is not told: %q", request)
	}
	info, alerts := p.status()
	if info["ex.TestMode"] != "True" || !strings.HasSuffix(info["HardwareId"], "-CTS") || !strings.Contains(strings.Join(alerts, "\n"), "PToken.TestMode") {
		t.Errorf("sm status: %v, %v", info, alerts)
	}
	c, err := p.vcm.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	st, err := c.API.GetStatus(t.Context(), vending.MessageID(), c.Token)
	if err != nil || !strings.Contains(fmt.Sprint(st), "ex.TestMode") || !strings.Contains(fmt.Sprint(st), "PToken.TestMode") {
		t.Errorf("getStatus: %v, %v", st, err)
	}
	if said := p.must(rig.Provider, "vcmadmin", "show", p.vcm.UUID); !strings.Contains(said, "WARNING: the HSM was in CTS test mode") {
		t.Errorf("vcmadmin show: %q", said)
	}
	if said := p.must(rig.Provider, "hsmadmin", "info"); !strings.Contains(said, "CTS test mode") {
		t.Errorf("hsmadmin info: %q", said)
	}
}

// STA tables of the operator's replace the sample tables, are named by name and
// digest, and are there after the module's process was killed.
func TestSTATables(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "02", Name: "EA07"}})
	p.load()
	var tables struct {
		Sub0 [16]int `json:"sub0"`
		Sub1 [16]int `json:"sub1"`
		Perm [64]int `json:"perm"`
	}
	for i := range 16 {
		tables.Sub0[i], tables.Sub1[(i+5)%16] = (i+5)%16, i
	}
	for i := range 64 {
		tables.Perm[i] = (i*29 + 7) % 64
	}
	write := func(name string) string {
		t.Helper()
		text, err := json.Marshal(tables)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.Mail(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return p.Mail(name)
	}
	good := write("tables.json")
	tables.Sub1[0] = tables.Sub1[1]
	bad := write("bad.json")

	tcp := dialTCP(t, p.endpoint("smapi"))
	fields := credit(1, "600727000000000009", 1, tidAt(time.Now()))
	fields[3], fields[4] = "N7", "N1"
	token := tcp.must(2, "VC", fields...)[1]
	verified := func(c *client) string {
		return c.must(5, "VT", "N1", "P600727000000000009", "N1", "N7", "P"+token)[0]
	}
	if got := verified(tcp); got != "0" {
		t.Errorf("VT %s", got)
	}
	before, _ := p.status()
	if before["ex.StaTables"] != "iec-sample" || len(before["ex.StaTablesSha256"]) != 64 {
		t.Errorf("status %v", before)
	}
	p.refused(exitUsage, "STA tables", "sm", "load-tables", "--name", "mine", bad)
	p.refused(exitUsage, "is not a name", "sm", "load-tables", "--name", "iec-sample", good)
	said := p.tenant("sm", "load-tables", "--name", "mine", good)
	if got := verified(tcp); got != "3" {
		t.Errorf("a token of the old tables verifies under the new ones: %s", got)
	}
	p.killVCM()
	v := &vendor{t: t, address: p.endpoint("smapi")}
	v.connect()
	if got := verified(v.client); got != "3" {
		t.Errorf("after a kill: VT %s", got)
	}
	after, _ := p.status()
	if after["ex.StaTables"] != "mine" || after["ex.StaTablesSha256"] == before["ex.StaTablesSha256"] || !strings.Contains(said, after["ex.StaTablesSha256"]) {
		t.Errorf("%q, then status %v", said, after)
	}
}

// The Conductor's settings apply at once, and it restarts without the module.
func TestConductorSettings(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "Only"}})
	address := p.endpoint("smapi")
	show := func(verb string) (c struct {
		Address    string
		Sockets    int
		MaxSockets int    `json:"max_sockets"`
		TraceLevel string `json:"trace_level"`
		Restarts   int
		Refused    int
		Commands   int
		SSH        int `json:"ssh_sessions"`
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(p.tenant("conductor", verb, "--json")), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := show("show"); c.Address != address || !strings.HasSuffix(address, ":5100") || c.MaxSockets != 64 || c.TraceLevel != "Default" || c.Sockets != 0 {
		t.Errorf("%+v", c)
	}
	first := dialTCP(t, address)
	first.must(2, "DI")
	p.tenant("pref", "set", "conductor.maxSockets", "1")
	p.tenant("pref", "set", "conductor.traceLevel", "Verbose")
	p.refused(exitUsage, "out of range", "pref", "set", "conductor.maxSockets", "0")
	p.refused(exitUsage, "out of range", "pref", "set", "conductor.traceLevel", "Loud")
	second, err := net.DialTimeout("tcp", address, answerTime)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, _, err := (&client{t, second}).ask("DI"); err == nil {
		t.Error("a second socket is served")
	}
	first.must(2, "QD")
	ssh := p.dialSSH() // the limit is of TCP sockets
	ssh.must(2, "DI")
	if c := show("show"); c.Sockets != 1 || c.MaxSockets != 1 || c.TraceLevel != "Verbose" || c.Refused != 1 || c.Commands != 3 || c.SSH != 1 {
		t.Errorf("%+v", c)
	}
	if line, err := first.line("SM?ZZ"); err != nil || line != "GL!ER2166E5" {
		t.Errorf("framed: %q, %v", line, err)
	}
	if log := p.Tail(p.Daemon("orchestratord")); !strings.Contains(log, "SM?QD") {
		t.Errorf("the trace does not show the command: %s", log)
	}
	if c := show("restart"); c.Restarts != 1 || c.Sockets != 0 || c.SSH != 0 {
		t.Errorf("%+v", c)
	}
	if _, _, err := first.ask("DI"); err == nil {
		t.Error("a socket from before the restart is served")
	}
	again := dialTCP(t, address)
	again.must(2, "DI")
	if n := again.logged("conductor.restart ssh:prismtoken"); n != 1 {
		t.Errorf("the audit log has %d restarts", n)
	}
	p.tenant("pref", "set", "conductor.errorFraming", "raw")
	const unknown = "SM?ZZ"
	line := unknown + crc16(unknown)
	if _, err := again.stream.Write([]byte("\x00" + string(rune(6+len(line)+1)) + "\x01\x02\x03\x04\x05\x06" + line + "\r")); err != nil {
		t.Fatal(err)
	}
	bare := make([]byte, len("GL!ER2166E5\r"))
	stop := time.AfterFunc(answerTime, func() { _ = again.stream.Close() })
	if _, err := io.ReadFull(again.stream, bare); err != nil || string(bare) != "GL!ER2166E5\r" {
		t.Errorf("without a frame: %q, %v", bare, err)
	}
	stop.Stop()
	if n := len(p.VCMs()); n == 0 {
		t.Error("the VCM ended")
	}
}
