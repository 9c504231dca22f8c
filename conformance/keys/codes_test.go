package keys_test

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

// caller checks answers and remembers which commands and codes there were.
type caller struct {
	*client
	commands map[string]bool
	codes    map[string]string // and what provoked them
}

// wants sends a command that has to be answered with this status.
func (c *caller) wants(status, command string, fields ...string) []string {
	c.t.Helper()
	got, values := c.call(command, fields...)
	c.commands["SM?"+command] = true
	c.codes[got] = command
	if got != status {
		c.t.Errorf("SM?%s %v: %s %v instead of %s", command, fields, got, values, status)
	}
	return values
}

// says sends a line that has to be answered with this text.
func (c *caller) says(want, line string) {
	c.t.Helper()
	got, err := c.line(line)
	if err != nil || got != want+crc16(want) {
		c.t.Errorf("%s: %q, %v; want %q", line, got, err, want)
		return
	}
	c.commands[line[:5]] = true
	c.codes[want[5:7]] = line[:5]
}

// A client that knows the description of the low-level API alone uses each of its
// commands, and provokes each of its response codes that a module with vending
// firmware and without a key-entry device can give.
func TestEveryCommandAndCode(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "First"}})
	p.tenant("kmc", "delete-slot", "--yes", centre)
	c := &caller{dialTCP(t, p.endpoint("smapi")), map[string]bool{}, map[string]string{}}
	c.general()
	own := p.newOwnCentre("OWN-KMC")
	c.keyAgreement(own)
	c.keyLoading(own)
	c.vending()
	c.slotsAndLog(p)
	p.licenceCodes(c)

	p.tenant("maintenance", "on")
	c.wants("35", "VC", credit(1, somePAN, 1, tidAt(time.Now()))...)
	p.tenant("maintenance", "off")
	// Without its unit the module works on until what it leased is used up.
	unit := p.Daemon("hsmd")
	if err := syscall.Kill(unit.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	status := ""
	for end := time.Now().Add(time.Minute); status != "01" && time.Now().Before(end); {
		status, _ = c.call("VC", credit(1, somePAN, 1, tidAt(time.Now()))...)
	}
	if err := syscall.Kill(unit.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.codes[status] = "VC"

	for _, want := range strings.Fields("GL?EC GL?RR GL?RS SM?DI SM?QI SM?QD SM?GA SM?CQ SM?VC SM?VM SM?VK SM?VT SM?KC SM?KR SM?KL SM?KF SM?KX SM?KD SM?QK SM?CI SM?QL") {
		if !c.commands[want] {
			t.Errorf("%s was not used", want)
		}
	}
	for _, want := range strings.Fields("00 01 02 03 05 20 21 22 26 27 28 29 31 33 34 35 40 41 42 43 44 45 48 49 60 61 62 63 76 77 80 85 87 94 EE") {
		if c.codes[want] == "" {
			t.Errorf("code %s was not provoked", want)
		}
	}
	t.Logf("%d commands, codes %s", len(c.commands), strings.Join(slices.Sorted(maps.Keys(c.codes)), " "))
}

const somePAN = "600727000000000009"

func (c *caller) general() {
	c.t.Helper()
	c.says("GL!RR02", "GL?RR")
	c.says("GL!EC0000512345", "GL?EC0000512345")
	c.says("GL!EC02", "GL?EC0000612345")
	c.wants("00", "QD")
	first, err := c.line("SM?DI")
	if err != nil {
		c.t.Fatal(err)
	}
	// A request with a wrong CRC is answered so, and the last answer is still there.
	stream := c.stream
	bad := "SM?DI0000"
	if _, err := stream.Write(append([]byte{0, byte(7 + len(bad)), 1, 2, 3, 4, 5, 6}, bad+"\r"...)); err != nil {
		c.t.Fatal(err)
	}
	answer := make([]byte, 8+len("GL!ER20A624\r"))
	if _, err := io.ReadFull(stream, answer); err != nil || string(answer) != "\x00\x12\x01\x02\x03\x04\x05\x06GL!ER20A624\r" {
		c.t.Errorf("wrong CRC: %q, %v", answer, err)
	}
	c.codes["20"] = "SM?DI"
	for range 2 {
		if got, err := c.line("GL?RR"); err != nil || got != first {
			c.t.Errorf("GL?RR: %q, %v; want %q", got, err, first)
		}
	}
	c.says("GL!RS02", "GL?RSx")
	c.says("GL!RS00", "GL?RS")
	c.says("GL!RR02", "GL?RR")
	c.says("GL!ER21", "SM?ZZ")
	c.says("GL!ER21", "SM?ML") // manufacturing firmware's
	c.wants("00", "DI")
	c.wants("00", "QI")
	c.wants("00", "CQ")
	c.wants("60", "DI", "N1")
	c.wants("61", "GA", "P1")
	c.wants("62", "GA", "N01")
	c.wants("63", "GA", "N1000")
	c.wants("22", "GA", "N1")
	c.wants("22", "KD", "N1")
	c.wants("45", "QK", "N1")
}

// keyAgreement goes through the refusals of KC and KR to a session.
func (c *caller) keyAgreement(own *ownCentre) {
	c.t.Helper()
	c.wants("49", "KC", "Pnothing")
	for _, k := range []struct{ status, tag, value, text string }{
		{"EE", "CRV", "P256", "SM.1.2: Bad KMC PUBKEY: unsupported curve P256"},
		{"EE", "QSV", "00", "SM.1.3: Bad KMC PUBKEY: invalid point"},
		{"EE", "KPN", "0", "SM.1.1: Bad KMC PUBKEY: "},
		{"43", "ACT", "20990101", ""}, {"41", "EXP", "20200101", ""},
	} {
		v := c.wants(k.status, "KC", "P"+own.record(k.tag, k.value))
		if k.text != "" && (len(v) != 1 || !strings.HasPrefix(v[0], k.text)) {
			c.t.Errorf("KC with %s %s: %q", k.tag, k.value, v)
		}
	}
	c.wants("26", "KF", "P"+own.name)
	c.wants("26", "KL", "P"+own.name, "Pnothing")
	c.wants("27", "KX", "P"+own.name)
	request := c.wants("00", "KC", "P"+own.record())[0]
	good := own.answer(request, 20)
	c.wants("49", "KR", "Pnothing")
	for _, k := range []struct{ tag, value, text string }{
		{"SMI", "00000001", "SM.3B.1"}, {"SPN", "9", "SM.3B.2"}, {"KPN", "9", "SM.3B.4"}, {"SCH", "C12", "SM.3B.5"},
		{"QEV", "00", "SM.3B.6"}, {"CNT", "0", "SM.3B.7"}, {"TVP", "20200101000000", "SM.3B.8"}, {"MAC", strings.Repeat("0", 32), "SM.3B.9"}, {"KID", "", "SM.3A.2"},
	} {
		v := c.wants("EE", "KR", "P"+changed(good, k.tag, k.value))
		if len(v) != 1 || !strings.HasPrefix(v[0], k.text+": Bad VKLOADRESP: ") {
			c.t.Errorf("KR with %s %q: %q, want %s", k.tag, k.value, v, k.text)
		}
	}
	// None of them used the request up.
	if v := c.wants("00", "KR", "P"+good.String()); v[0] != own.name || v[1] != "20" {
		c.t.Errorf("KR: %v", v)
	}
	c.wants("26", "KR", "P"+good.String())
}

// The registers that keyLoading fills.
const (
	plain = iota + 1
	defaultKey
	commonKey
	electricityOnly
	future
	past
	shortLived
	limited
	otherCluster
	nextEpoch
	legacy
	withoutAlgorithm
)

func (c *caller) keyLoading(own *ownCentre) {
	c.t.Helper()
	load := func(status string, rec string, register ...string) []string {
		c.t.Helper()
		return c.wants(status, "KL", append([]string{"P" + own.name, "P" + rec}, register...)...)
	}
	load("49", "nothing")
	load("77", changed(own.wrap(1, nil), "KEN", "254"))
	load("94", own.wrap(1, func(a *keyload.KeyAttributes) { a.KRN = 0 }).String())
	load("94", own.wrap(1, func(a *keyload.KeyAttributes) { a.DKG, a.KCV = 3, "000000" }).String())
	load("94", own.wrap(1, func(a *keyload.KeyAttributes) { a.KCV = "000000" }).String())
	load("63", own.wrap(1, nil).String(), "N1000")
	hour := time.Hour
	for i, change := range []func(*keyload.KeyAttributes){
		nil,
		func(a *keyload.KeyAttributes) { a.KTC = "VDDK" },
		func(a *keyload.KeyAttributes) { a.KTC = "VCDK" },
		func(a *keyload.KeyAttributes) { a.SBM = 1 },
		func(a *keyload.KeyAttributes) { a.ACT = time.Now().Add(hour) },
		func(a *keyload.KeyAttributes) { a.IUT = time.Now().Add(-hour) },
		func(a *keyload.KeyAttributes) { a.KEN = 10 },
		func(a *keyload.KeyAttributes) { a.ULM, a.CLM = 0x66, 0 },
		func(a *keyload.KeyAttributes) { a.CLU = 1 },
		func(a *keyload.KeyAttributes) { a.BDT = 2035 },
		func(a *keyload.KeyAttributes) { a.DKG = 2 },
		func(a *keyload.KeyAttributes) { a.DKG = 1 },
	} {
		if v := load("00", own.wrap(i+1, change).String()); v[0] != strconv.Itoa(i+1) {
			c.t.Fatalf("key %d went to register %v", i+1, v)
		}
	}
	c.wants("26", "VC", credit(plain, somePAN, 1, tidAt(time.Now()))...)
	if v := c.wants("00", "KF", "P"+own.name); v[0] != strconv.Itoa(withoutAlgorithm) {
		c.t.Errorf("KF: %v", v)
	}
	if v := c.wants("00", "GA", "N1"); !strings.HasPrefix(strings.Split(v[0], ";")[1], "BDT2014") || !strings.Contains(v[0], ";KEN255;") || !strings.HasSuffix(v[0], ";VND1") {
		c.t.Errorf("GA: %v", v)
	}
	for n := past; n <= limited; n++ {
		if v := c.wants("00", "GA", "N"+strconv.Itoa(n)); !strings.HasSuffix(v[0], ";VND0") {
			c.t.Errorf("GA of register %d: %v", n, v)
		}
	}
}

func (c *caller) vending() {
	c.t.Helper()
	now := tidAt(time.Now())
	vc := func(status string, register int, change ...string) []string {
		c.t.Helper()
		fields := credit(register, somePAN, 1, now)
		for i := 0; i < len(change); i += 2 {
			n, err := strconv.Atoi(change[i])
			if err != nil {
				c.t.Fatal(err)
			}
			fields[n] = change[i+1]
		}
		return c.wants(status, "VC", fields...)
	}
	token := vc("00", plain)[1]
	vc("22", 900)
	vc("76", plain, "1", "P600727000000000008")
	for _, bad := range [][]string{{"2", "N100"}, {"3", "N9"}, {"4", "N100"}, {"5", "N8"}} {
		vc("40", plain, bad...)
	}
	vc("40", withoutAlgorithm, "3", "N7", "4", "N1") // DKGA01 is not built
	vc("05", defaultKey)
	vc("05", commonKey)
	vc("48", electricityOnly, "5", "N1")
	vc("43", future)
	vc("42", past)
	vc("41", shortLived)
	vc("44", plain, "7", "H01")
	vc("00", limited)
	vc("31", limited)
	vc("31", limited, "5", "N4", "6", "H000001")
	vc("00", legacy, "3", "N7", "4", "N1")

	vm := func(status string, register int, subclass string) {
		c.t.Helper()
		c.wants(status, "VM", "N"+strconv.Itoa(register), "P"+somePAN, "N1", "N11", "N2", subclass, "HFFFF", now)
	}
	vm("00", plain, "N1")
	vm("40", plain, "N3")
	vm("42", past, "N1")
	vm("41", shortLived, "N1")
	vk := func(status string, from, to int, tokens string) []string {
		c.t.Helper()
		return c.wants(status, "VK", "N"+strconv.Itoa(from), "N"+strconv.Itoa(to), "P"+somePAN, "N1", "N11", "N2", "N2", tokens)
	}
	if v := vk("00", plain, nextEpoch, "N4"); v[0] != "1" || len(v[3]) != 80 {
		c.t.Errorf("VK across base dates: %v", v)
	}
	vk("29", plain, otherCluster, "N4")
	vk("29", nextEpoch, plain, "N4")
	vk("29", plain, commonKey, "N4")
	vk("85", plain, electricityOnly, "N3")
	vk("43", plain, future, "N4")
	vk("42", past, plain, "N4")

	vt := func(result string, register int, token string) {
		c.t.Helper()
		if v := c.wants("00", "VT", "N"+strconv.Itoa(register), "P"+somePAN, "N1", "N11", "P"+token); v[0] != result {
			c.t.Errorf("VT: %v instead of %s", v, result)
		}
		c.codes[fmt.Sprintf("%02s", result)] = "VT's result"
	}
	vt("0", plain, token)
	vt("80", defaultKey, forged(c.t, somePAN, defaultKey))
	vt("3", plain, token[:19]+strconv.Itoa((int(token[19]-'0')+1)%10))
}

// slotsAndLog uses up the slots, deletes a key and a slot, and reads the log.
func (c *caller) slotsAndLog(p *platform) {
	c.t.Helper()
	if v := c.wants("00", "QK", "N1"); !strings.HasPrefix(v[0], "KMCOWN-KMC;STAACTIVE;REQ0;TVP") || !strings.HasSuffix(v[0], ";CNT"+strconv.Itoa(withoutAlgorithm)) {
		c.t.Errorf("QK: %v", v)
	}
	for n := 2; n <= 4; n++ {
		c.wants("00", "KC", "P"+p.newOwnCentre("KMC"+strconv.Itoa(n)).record())
	}
	fifth := p.newOwnCentre("KMC5")
	c.wants("27", "KC", "P"+fifth.record())
	c.wants("00", "KX", "PKMC2")
	// A register of another centre's is not there for this one.
	request := c.wants("00", "KC", "P"+fifth.record())[0]
	c.wants("00", "KR", "P"+fifth.answer(request, 1).String())
	c.wants("28", "KL", "P"+fifth.name, "P"+fifth.wrap(1, nil).String(), "N1")
	c.wants("00", "KF", "P"+fifth.name)
	c.wants("00", "KD", "N"+strconv.Itoa(otherCluster))
	c.wants("22", "KD", "N"+strconv.Itoa(otherCluster))
	if v := c.wants("00", "QL", "N1"); v[0] != "1" {
		c.t.Errorf("QL: %v", v)
	}
	c.wants("45", "QL", "N100000")
}

// licenceCodes gives the module licences that are and are not for it.
func (p *platform) licenceCodes(c *caller) {
	c.t.Helper()
	load := func(status, file string) {
		c.t.Helper()
		record, signature, err := keyload.ParseLicenceText(read(p.t, file))
		if err != nil {
			c.t.Fatal(err)
		}
		c.wants(status, "CI", "P"+record, fmt.Sprintf("H%X", signature))
	}
	c.wants("02", "CI", "PCI.TXLIC.1", "HAB")
	nonce := c.wants("00", "CQ")[2]
	out := p.Mail("other.txt")
	other := fmt.Sprintf("%08d", 1+mustAtoi(c.t, p.module()))
	p.must(rig.Maker, "vendor", "transaction-licence", "--dir", p.Path("maker", "keys"), "--module-id", other, "--nonce", nonce, "--transactions", "9", "--out", out)
	load("33", out)
	mine := p.licence("mine.txt", "keys", nonce, "--transactions", "1")
	load("00", mine)
	load("87", mine)
	c.wants("00", "VC", credit(plain, somePAN, 1, tidAt(time.Now()))...)
	c.wants("34", "VC", credit(plain, somePAN, 1, tidAt(time.Now()))...)
	load("00", p.licence("more.txt", "keys", c.wants("00", "CQ")[2], "--transactions", "1000000"))
}

func mustAtoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
