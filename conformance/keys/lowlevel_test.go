package keys_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

// loadRaw takes the KMC's keys through KC, KR, KL and KF alone.
func (p *platform) loadRaw(c *client) {
	p.t.Helper()
	key, err := keyload.ParseKMCPublicKeyText(read(p.t, p.Mail("kmc.pub")))
	if err != nil {
		p.t.Fatal(err)
	}
	request := c.must(1, "KC", "P"+key.Record().String())[0]
	answer, err := p.openKMC().Answer(request, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	klf, err := keyload.ParseKLF(answer.Text)
	if err != nil {
		p.t.Fatal(err)
	}
	if v := c.must(2, "KR", "P"+klf.Response); v[0] != centre || v[1] != strconv.Itoa(len(klf.Keys)) {
		p.t.Errorf("KR: %v", v)
	}
	// Keys of a slot that is LOADING do not vend.
	for i, rec := range klf.Keys {
		if v := c.must(2, "KL", "P"+centre, "P"+rec.String()); v[0] != strconv.Itoa(i+1) {
			p.t.Errorf("KL: %v", v)
		}
	}
	if status, _ := c.call("VC", credit(1, "600727000000000009", 1, tidAt(time.Now()))...); status != "26" {
		p.t.Errorf("VC while LOADING: %s", status)
	}
	if v := c.must(1, "KF", "P"+centre); v[0] != strconv.Itoa(len(klf.Keys)) {
		p.t.Errorf("KF: %v", v)
	}
	if status, _ := c.call("KL", "P"+centre, "P"+klf.Keys[0].String()); status != "26" {
		p.t.Errorf("KL after the end: %s", status)
	}
}

// credit are the fields of SM?VC for an EA11 meter.
func credit(register int, pan string, ti int, tid string) []string {
	return []string{"N" + strconv.Itoa(register), "P" + pan, "N" + strconv.Itoa(ti), "N11", "N2", "N0", "H0066", tid}
}

// pan18 is a meter's number as the module takes it.
func pan18(t *testing.T, drn string) string {
	t.Helper()
	number := "600727" + drn
	sum, double := 0, true
	for i := len(number) - 1; i >= 0; i-- {
		d := int(number[i] - '0')
		if double {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		double = !double
	}
	return number + strconv.Itoa((10-sum%10)%10)
}

// The low-level API over TCP and through OpenSSH: keys come in, tokens go out,
// and the meter takes them all.
func TestLowLevelClient(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "First"}, {SGC: "654321", DKG: "04", Name: "Second"}})
	tcp := dialTCP(t, p.endpoint("smapi"))
	if answer, err := tcp.line("GL?EC0000512345"); err != nil || answer != "GL!EC0000512345"+crc16("GL!EC0000512345") {
		t.Errorf("echo %q, %v", answer, err)
	}
	p.loadRaw(tcp)
	minute := time.Now()
	for i, name := range []string{"TCP", "OpenSSH"} {
		c := tcp
		if name == "OpenSSH" {
			c = p.dialSSH()
		}
		p.vendsThrough(t, name, c, i+1, &minute)
	}
	id := tcp.must(2, "DI")
	if id[0] != p.module() || !strings.HasPrefix(id[1], "STS64V") {
		t.Errorf("DI %v", id)
	}
	if v := tcp.must(4, "QI"); !strings.Contains(v[0], p.module()) || !strings.HasPrefix(v[1], "TSM500") {
		t.Errorf("QI %v", v)
	}
	if status, _ := tcp.call("GA", "N3"); status != "22" {
		t.Errorf("GA of an empty register: %s", status)
	}
	if tcp.logged("key.load conductor 127.") == 0 {
		t.Error("QL shows no key.load by the Conductor's client")
	}
}

// logged counts the entries of the audit log that have each of these words.
func (c *client) logged(words string) (found int) {
	c.t.Helper()
	for n := 1; ; n++ {
		status, v := c.call("QL", "N"+strconv.Itoa(n))
		if status == "45" {
			return found
		}
		if status != "00" || len(v) != 3 || len(v[2]) > 240 {
			c.t.Fatalf("QL %d: %s, %v", n, status, v)
		}
		has := true
		for _, w := range strings.Fields(words) {
			has = has && strings.Contains(v[2], w)
		}
		if has {
			found++
		}
	}
}

func (p *platform) vendsThrough(t *testing.T, name string, c *client, first int, minute *time.Time) {
	t.Helper()
	accounts, err := p.Accounts("123456", first, 1)
	if err != nil {
		t.Fatal(err)
	}
	m, pan := accounts[0].Meter, pan18(t, accounts[0].Config.Drn)
	next := func() string { *minute = minute.Add(time.Minute); return tidAt(*minute) }
	enter := func(what, token string) {
		t.Helper()
		if r, err := m.Enter(token, time.Now()); err != nil || !r.Accepted {
			t.Errorf("%s: the meter says %s, %v to the %s", name, r, err, what)
		}
	}
	tid := next()
	token := c.must(2, "VC", credit(1, pan, 1, tid)...)
	enter("credit", token[1])
	if v := c.must(5, "VT", "N1", "P"+pan, "N1", "N11", "P"+token[1]); v[0] != "0" || v[3] != "0066" || "H"+v[4] != tid {
		t.Errorf("%s: verified %v", name, v)
	}
	enter("clearing", c.must(2, "VM", "N1", "P"+pan, "N1", "N11", "N2", "N1", "HFFFF", next())[1])
	set := c.must(4, "VK", "N1", "N2", "P"+pan, "N1", "N11", "N2", "N7", "N4")
	for i := 0; i < len(set[3]); i += 20 {
		enter("key change", set[3][i:i+20])
	}
	enter("credit under the new key", c.must(2, "VC", credit(2, pan, 7, next())...)[1])
	for _, bad := range []struct {
		status string
		fields []string
	}{
		{"60", credit(1, pan, 1, tid)[:7]}, {"61", append([]string{"P1"}, credit(1, pan, 1, tid)[1:]...)},
		{"62", append([]string{"N01"}, credit(1, pan, 1, tid)[1:]...)}, {"63", credit(1000, pan, 1, tid)},
		{"22", credit(999, pan, 1, tid)}, {"76", credit(1, pan[:17]+"x", 1, tid)}, {"44", credit(1, pan, 1, "H000001")},
	} {
		if status, _ := c.call("VC", bad.fields...); status != bad.status {
			t.Errorf("%s: VC %v: %s instead of %s", name, bad.fields, status, bad.status)
		}
	}
}
