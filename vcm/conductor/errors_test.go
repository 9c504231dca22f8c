package conductor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
)

// Each line and its answer, without CRCs.
func TestAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	newClient(t, r.address).loadKeys(r, group(123456), group(200001, func(g *kmc.Group) { g.KTC = "VDDK" }), group(200002, func(g *kmc.Group) { g.SBM = 0x7F }))
	now := tidOf(noon)
	vc := func(register, pan, ti, ea, tct, sub, amount, tid string) string {
		return "SM?VC" + strings.Join([]string{register, pan, ti, ea, tct, sub, amount, tid}, "~") + "~"
	}
	good := []string{"N1", "P" + pan, "N1", "N11", "N2", "N0", "H0001", "H" + now}
	with := func(i int, value string) string {
		f := append([]string(nil), good...)
		f[i] = value
		return vc(f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7])
	}
	socket := r.dial()
	for _, c := range []struct{ name, line, want string }{
		{"unknown command", "SM?XX", "GL!ER21"},
		{"unknown group", "XX?VC", "GL!ER21"},
		{"a response", "SM!DI", "GL!ER21"},
		{"lower case", "sm?DI", "GL!ER21"},
		{"manufacturing command", "SM?MLN7~N2~PABCDEF~", "GL!ER21"},
		{"legacy command", "SM?ID", "GL!ER21"},
		{"GL unknown", "GL?XX", "GL!ER21"},

		{"echo", "GL?EC00003abc", "GL!EC00003abc"},
		{"echo of nothing", "GL?EC00000", "GL!EC00000"},
		{"echo with a time-out", "GL?EC99001x", "GL!EC00001x"},
		{"echo too short", "GL?EC00004abc", "GL!EC02"},
		{"echo too long", "GL?EC00002abc", "GL!EC02"},
		{"echo without length", "GL?EC00", "GL!EC02"},
		{"echo length no number", "GL?EC000x1a", "GL!EC02"},
		{"reset", "GL?RS", "GL!RS00"},
		{"reset of something", "GL?RS1", "GL!RS02"},

		{"60 no fields", "SM?VC", "SM!VC60"},
		{"60 a field too few", "SM?VCN1~P1~N1~N11~N2~N0~H0001~", "SM!VC60"},
		{"60 a field too many", with(7, "H"+now+"~N1"), "SM!VC60"},
		{"60 not ended", strings.TrimSuffix(with(0, "N1"), "~"), "SM!VC60"},
		{"60 fields where none are", "SM?DIN1~", "SM!DI60"},
		{"60 before 61", "SM?GAP1~P2~", "SM!GA60"},
		{"61 type", with(0, "P1"), "SM!VC61"},
		{"61 no type", with(0, ""), "SM!VC61"},
		{"61 of a later field before 62 of an earlier", vc("Nx", "P"+pan, "N1", "N11", "N2", "N0", "H0001", "N1"), "SM!VC61"},
		{"62 no number", with(0, "Nx"), "SM!VC62"},
		{"62 leading zero", with(0, "N01"), "SM!VC62"},
		{"62 sign", with(0, "N+1"), "SM!VC62"},
		{"62 empty number", with(0, "N"), "SM!VC62"},
		{"62 number of 33 bits", with(0, "N4294967296"), "SM!VC62"},
		{"62 odd hex", with(7, "H1"), "SM!VC62"},
		{"62 lower-case hex", with(6, "H00ab"), "SM!VC62"},
		{"62 empty hex", with(6, "H"), "SM!VC62"},
		{"62 not printable", with(1, "P6007270000000000\x0709"), "SM!VC62"},
		{"62 before 63", vc("N0", "P"+pan, "N1", "N11", "N2", "N0", "H0001", "Hxx"), "SM!VC62"},
		{"63 register 0", with(0, "N0"), "SM!VC63"},
		{"63 register 1000", with(0, "N1000"), "SM!VC63"},
		{"63 largest number", with(0, "N4294967295"), "SM!VC63"},
		{"63 amount of one octet", with(6, "H01"), "SM!VC63"},
		{"63 amount of three octets", with(6, "H000001"), "SM!VC63"},
		{"63 TID of four octets", with(7, "H00"+now), "SM!VC63"},
		{"63 before 76", vc("N0", "P1", "N1", "N11", "N2", "N0", "H0001", "H"+now), "SM!VC63"},
		{"63 currency of two octets", vc("N1", "P"+pan, "N1", "N11", "N2", "N4", "H0001", "H"+now), "SM!VC63"},
		{"63 currency of 21 bits", vc("N1", "P"+pan, "N1", "N11", "N2", "N4", "H100001", "H"+now), "SM!VC63"},
		{"76", with(1, "P600727000000000008"), "SM!VC76"},
		{"76 empty", with(1, "P"), "SM!VC76"},
		{"76 before 40", vc("N1", "P1", "N1", "N3", "N2", "N0", "H0001", "H"+now), "SM!VC76"},
		{"40 EA", with(3, "N9"), "SM!VC40"},
		{"40 TI", with(2, "N100"), "SM!VC40"},
		{"40 subclass", with(5, "N8"), "SM!VC40"},
		{"22", with(0, "N9"), "SM!VC22"},
		{"05", with(0, "N2"), "SM!VC05"},
		{"44", with(7, "H01"), "SM!VC44"},
		{"48", vc("N3", "P"+pan, "N1", "N11", "N2", "N7", "H000001", "H"+now), "SM!VC48"},
		{"currency", vc("N1", "P"+pan, "N1", "N11", "N2", "N7", "H000001", "H"+now), "ok"},

		{"VM 63 value of three octets", "SM?VMN1~P" + pan + "~N1~N11~N2~N1~H00FFFF~H" + now + "~", "SM!VM63"},
		{"VM 63 TID", "SM?VMN1~P" + pan + "~N1~N11~N2~N1~HFFFF~H00000000~", "SM!VM63"},
		{"VM 40", "SM?VMN1~P" + pan + "~N1~N11~N2~N3~HFFFF~H" + now + "~", "SM!VM40"},
		{"VK 85", "SM?VKN1~N1~P" + pan + "~N1~N11~N2~N2~N3~", "SM!VK85"},
		{"VK 22", "SM?VKN1~N9~P" + pan + "~N1~N11~N2~N2~N4~", "SM!VK22"},
		{"VT 62", "SM?VTN1~P" + pan + "~N1~N11~P123~", "SM!VT62"},
		{"VT 62 before 63", "SM?VTN0~P" + pan + "~N1~N11~P123~", "SM!VT62"},
		{"VT 63 before 76", "SM?VTN0~P1~N1~N11~P00000000000000000000~", "SM!VT63"},
		{"VT CRC", "SM?VTN1~P" + pan + "~N1~N11~P00000000000000000000~", "SM!VT00N3~N0~N0~H~H~"},
		{"VT 22", "SM?VTN9~P" + pan + "~N1~N11~P00000000000000000000~", "SM!VT22"},
		{"GA 22", "SM?GAN9~", "SM!GA22"},
		{"GA 63", "SM?GAN0~", "SM!GA63"},
		{"KD 63", "SM?KDN0~", "SM!KD63"},
		{"KC 49", "SM?KCPnothing~", "SM!KC49"},
		{"KC EE", "SM?KCP" + record("VK.WRAP.1;SGC1;") + "~", "SM!KCEEPSM.1.1: Bad KMC PUBKEY: wrong record type VK.WRAP.1~"},
		{"KR 49", "SM?KRPnothing~", "SM!KR49"},
		{"KR 26", "SM?KRP" + record("VKLOAD.RSP.1;KMCTEST-KMC;") + "~", "SM!KR26"},
		{"KR EE", "SM?KRP" + record("VKLOAD.RSP.2;KMCNOBODY;") + "~", "SM!KREEPSM.3A.1: Bad VKLOADRESP: wrong record type VKLOAD.RSP.2~"},
		{"KL 26", "SM?KLPTEST-KMC~Pnothing~", "SM!KL26"},
		{"KF 26", "SM?KFPTEST-KMC~", "SM!KF26"},
		{"KX 27", "SM?KXPNOBODY~", "SM!KX27"},
		{"QK 45", "SM?QKN0~", "SM!QK45"},
		{"QL 45", "SM?QLN0~", "SM!QL45"},
		{"CI 02", "SM?CIPCI.TXLIC.1~HAB~", "SM!CI02"},
		{"CI 87", "SM?CIPCI.TXLIC.1~H" + strings.Repeat("AB", 96) + "~", "SM!CI87"},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket.t = t
			got := textOf(t, socket.exchange(frameOf(c.line)))
			if c.want == "ok" {
				if !strings.HasPrefix(got[5:], "00P") {
					t.Errorf("%s -> %s", c.line, got)
				}
				return
			}
			if got != c.want {
				t.Errorf("%s -> %s, want %s", c.line, got, c.want)
			}
		})
	}
}

func record(body string) string { return body + "CRC" + crc16(body) }

// A bad CRC, a line without CR, and one too short for a CRC.
func TestUnreadableLines(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	for name, frame := range map[string][]byte{
		"wrong CRC":         frameLine("SM?DI0000"),
		"CRC not hex":       frameLine("SM?DIxxxx"),
		"too short":         frameLine("SM?D"),
		"empty line":        frameLine(""),
		"CRC before header": frameLine("sm?di0000"),
		"no CR":             append(frameLine("SM?DI9A51")[:17], '!'),
	} {
		if got := textOf(t, r.dial().exchange(frame)); got != "GL!ER20" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := textOf(t, r.dial().exchange(frameLine("SM?DI9a51"))); got != "SM!DI00P89051616~PSTS64V10~" {
		t.Errorf("a CRC in lower case: %s", got)
	}
}

// The six bytes of a frame come back whatever they are.
func TestPrefixIsEchoed(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	frame := frameOf("SM?DI")
	copy(frame[2:8], "\x01\x02\x03\x04\x05\x06")
	if got := r.dial().exchange(frame); string(got[2:8]) != "\x01\x02\x03\x04\x05\x06" {
		t.Errorf("prefix %X", got[2:8])
	}
}

// GL?RR repeats the socket's last response, also after a bad CRC.
func TestRepeat(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	c := r.dial()
	say := func(line string) string { return textOf(t, c.exchange(frameOf(line))) }
	if got := say("GL?RR"); got != "GL!RR02" {
		t.Errorf("nothing to repeat: %s", got)
	}
	first := say("SM?QK" + "N1~")
	for range 2 {
		if got := say("GL?RR"); got != first {
			t.Errorf("%s, want %s", got, first)
		}
	}
	c.exchange(frameLine("SM?DI0000"))
	if got := say("GL?RR"); got != first {
		t.Errorf("after a bad CRC: %s, want %s", got, first)
	}
	say("GL?RS")
	if got := say("GL?RR"); got != "GL!RR02" {
		t.Errorf("after a reset: %s", got)
	}
}

// A module in its error state answers GL!ER58 to whatever concerns it.
func TestErrorState(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{module: func(c *tsm.Config) { c.BreakSelfTest = "aes-cmac" }})
	c := r.dial()
	for line, want := range map[string]string{"SM?DI": "GL!ER58", "SM?VC": "GL!ER58", "SM?XX": "GL!ER21", "GL?EC00001x": "GL!EC00001x"} {
		if got := textOf(t, c.exchange(frameOf(line))); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

// A vault that fails is a device failure; its reason stays inside.
func TestDeviceFailure(t *testing.T) {
	t.Parallel()
	failing := &failingVault{memory: newMemory()}
	r := newRig(t, option{vault: failing})
	newClient(t, r.address).loadKeys(r, group(123456))
	failing.broken = true
	got := textOf(t, r.dial().exchange(frameOf("SM?VCN1~P"+pan+"~N1~N11~N2~N0~H0001~H"+tidOf(noon)+"~")))
	if got != "SM!VC01" {
		t.Errorf("%s", got)
	}
}

type failingVault struct {
	*memory
	broken bool
}

func (v *failingVault) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	if v.broken {
		return errors.New("the disk is full of secrets")
	}
	return v.memory.Update(ctx, fn)
}

// A transaction licence through CQ and CI, and the log through QL.
func TestLicenceAndLog(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var log []tsm.Event
	r := newRig(t, option{module: func(c *tsm.Config) {
		c.InstructionKey = &key.PublicKey
		c.Audit = func(_ tsm.Tx, e tsm.Event) error { log = append(log, e); return nil }
		c.AuditEntry = func(_ tsm.Tx, n uint64) (tsm.Entry, bool, error) {
			if n > uint64(len(log)) {
				return tsm.Entry{}, false, nil
			}
			return tsm.Entry{Time: log[n-1].Time, Text: log[n-1].Kind + " ~ " + log[n-1].Subject + strings.Repeat("x", 60*int(n-1))}, true, nil
		}
	}})
	c := newClient(t, r.address)
	c.loadKeys(r, group(123456))
	nonce := c.must(4, "CQ")[2]
	record := keyload.TransactionLicence{ModuleID: moduleID, Nonce: unhex(t, nonce), Transactions: 1, InhibitVend: noon.Add(time.Hour)}.Record().String()
	signature, err := keyload.SignInstruction(key, record)
	if err != nil {
		t.Fatal(err)
	}
	sig := "H" + strings.ToUpper(hex.EncodeToString(signature))
	c.must(0, "CI", "P"+record, sig)
	if status, _ := c.call("CI", "P"+record, sig); status != "87" {
		t.Errorf("CI again: %s", status)
	}
	if v := c.must(4, "CQ"); v[0] != "1" || v[2] == nonce {
		t.Errorf("CQ %v", v)
	}
	vc := []string{"N1", "P" + pan, "N1", "N11", "N2", "N0", "H0001", "H" + tidOf(noon)}
	c.must(2, "VC", vc...)
	if status, _ := c.call("VC", vc...); status != "34" {
		t.Errorf("VC without transactions: %s", status)
	}
	if v := c.must(3, "QL", "N1"); v[0] != "1" || v[1] != "20251120120000" || v[2] != "module.create ? "+moduleID {
		t.Errorf("QL %v", v)
	}
	if v := c.must(3, "QL", "N7"); len("SM!QL00N7~D20251120120000~P~CRC4")+len(v[2]) > 248 || !strings.HasSuffix(v[2], "xxx...") {
		t.Errorf("a long entry: %v", v)
	}
	if status, _ := c.call("QL", "N1000"); status != "45" {
		t.Errorf("QL past the end: %s", status)
	}
	last := log[len(log)-1]
	if last.Kind != "token.credit" || !strings.HasPrefix(last.Actor, "conductor 127.0.0.1:") {
		t.Errorf("audit %+v", last)
	}
}

// Whether unapproved KMC keys may be used is asked at each SM?KC.
func TestUnapprovedKeys(t *testing.T) {
	t.Parallel()
	allowed := false
	r := newRig(t, option{server: func(c *conductor.Config) {
		c.AllowUnapproved = func(context.Context) bool { return allowed }
	}})
	key, err := r.kmc.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, r.address)
	status, v := c.call("KC", "P"+key.Record().String())
	if status != "EE" || v[0] != "SM.1.4: Bad KMC PUBKEY: no approval signature" {
		t.Errorf("%s %v", status, v)
	}
	allowed = true
	c.must(1, "KC", "P"+key.Record().String())
}
