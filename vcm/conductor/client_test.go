package conductor_test

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// This file is a client of the security-module API written from its reference
// page alone: its own CRC, frames and fields, nothing of the server's code.

// crc16 is CRC-16/ARC, bit by bit.
func crc16(text string) string {
	crc := 0
	for i := range len(text) {
		crc ^= int(text[i])
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low == 1 {
				crc ^= 0xA001
			}
		}
	}
	return fmt.Sprintf("%04X", crc)
}

// frameOf frames a line without CRC, frameLine one that has it.
func frameOf(text string) []byte { return frameLine(text + crc16(text)) }

func frameLine(line string) []byte {
	n := 6 + len(line) + 1
	out := []byte{byte(n >> 8), byte(n), 0xED, 0xF1, 0x2B, 0x00, 0xFE, 0xED}
	return append(append(out, line...), '\r')
}

// textOf checks a response frame and returns its text without CRC.
func textOf(t testing.TB, frame []byte) string {
	t.Helper()
	n := len(frame)
	if n < 8+11+1 || int(frame[0])<<8|int(frame[1]) != n-2 || frame[n-1] != '\r' {
		t.Fatalf("this is no response: %q", frame)
	}
	if string(frame[2:8]) != "\xED\xF1\x2B\x00\xFE\xED" {
		t.Fatalf("prefix %X", frame[2:8])
	}
	line := string(frame[8 : n-1])
	text, crc := line[:len(line)-4], line[len(line)-4:]
	if crc != crc16(text) {
		t.Fatalf("CRC %s of %q", crc, text)
	}
	return text
}

type client struct {
	t testing.TB
	*conn
}

func newClient(t testing.TB, address string) *client {
	t.Helper()
	return &client{t, (&rig{t: t, address: address}).dial()}
}

// call sends a command and returns status and fields.
func (c *client) call(command string, params ...string) (status string, values []string) {
	c.t.Helper()
	request := "SM?" + command
	for _, p := range params {
		request += p + "~"
	}
	text := textOf(c.t, c.exchange(frameOf(request)))
	if !strings.HasPrefix(text, "SM!"+command) {
		return strings.TrimPrefix(text, "GL!ER"), nil
	}
	status, rest := text[5:7], text[7:]
	for _, f := range strings.Split(strings.TrimSuffix(rest, "~"), "~") {
		if f != "" {
			values = append(values, f[1:])
		}
	}
	return status, values
}

// must is call for a command that has to succeed with n fields.
func (c *client) must(n int, command string, params ...string) []string {
	c.t.Helper()
	status, values := c.call(command, params...)
	if status != "00" || len(values) != n {
		c.t.Fatalf("SM?%s%v: status %s, fields %v", command, params, status, values)
	}
	return values
}

// loadKeys takes keys from the KMC through KC, KR, KL and KF.
func (c *client) loadKeys(r *rig, groups ...kmc.Group) {
	c.t.Helper()
	if err := r.kmc.AddGroups(groups); err != nil {
		c.t.Fatal(err)
	}
	if _, err := r.kmc.AuthoriseAll(moduleID); err != nil {
		c.t.Fatal(err)
	}
	key, err := r.kmc.PublicKey()
	if err != nil {
		c.t.Fatal(err)
	}
	request := c.must(1, "KC", "P"+key.Record().String())[0]
	answer, err := r.kmc.Answer(request, r.clock.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	file, err := keyload.ParseKLF(answer.Text)
	if err != nil {
		c.t.Fatal(err)
	}
	if v := c.must(2, "KR", "P"+file.Response); v[0] != "TEST-KMC" || v[1] != strconv.Itoa(len(file.Keys)) {
		c.t.Fatalf("KR: %v", v)
	}
	for i, rec := range file.Keys {
		if v := c.must(2, "KL", "PTEST-KMC", "P"+rec.String()); v[0] != strconv.Itoa(i+1) {
			c.t.Fatalf("KL: %v", v)
		}
	}
	c.must(1, "KF", "PTEST-KMC")
}

// The whole path of a raw TCP client: key load, attributes, credit, verify,
// management, key change, and a virtual meter that accepts every token.
func TestRawClient(t *testing.T) {
	t.Parallel()
	for _, ea := range []int{7, 11} {
		t.Run(fmt.Sprintf("EA%02d", ea), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, option{})
			c := newClient(t, r.address)
			c.loadKeys(r, group(123456), group(654321, func(g *kmc.Group) { g.KRN = 2 }))
			m := newMeter(t, ea, 123456, 1, 1)

			attributes := strings.Split(c.must(1, "GA", "N1")[0], ";")
			if attributes[1] != "BDT2014" || !contains(attributes, "KEN255") || !contains(attributes, "VND1") {
				t.Errorf("attributes %v", attributes)
			}
			enter := func(token string) {
				t.Helper()
				result, err := m.Enter(token, noon)
				if err != nil || !result.Accepted {
					t.Errorf("the meter says %+v, %v to %s", result, err, token)
				}
			}
			at := func(minutes int) string { return "H" + tidOf(noon.Add(time.Duration(minutes)*time.Minute)) }
			eaField := fmt.Sprintf("N%d", ea)
			tct := map[int]string{7: "N1", 11: "N2"}[ea]

			credit := c.must(2, "VC", "N1", "P"+pan, "N1", eaField, tct, "N0", "H0066", at(0))
			enter(credit[1])
			if v := c.must(5, "VT", "N1", "P"+pan, "N1", eaField, "P"+credit[1]); v[0] != "0" || v[3] != "0066" || v[4] != at(0)[1:] {
				t.Errorf("verified %v", v)
			}
			if v := c.must(5, "VT", "N1", "P"+pan, "N1", eaField, tct, "P"+credit[0]); v[0] != "0" {
				t.Errorf("verified by hex %v", v)
			}
			if result, err := m.Enter(credit[1], noon); err != nil || result.Accepted {
				t.Errorf("the meter takes a token twice: %+v, %v", result, err)
			}
			enter(c.must(2, "VM", "N1", "P"+pan, "N1", eaField, tct, "N1", "HFFFF", at(1))[1])

			n := map[int]string{7: "N2", 11: "N4"}[ea]
			set := c.must(4, "VK", "N1", "N2", "P"+pan, "N1", eaField, tct, "N7", n)
			if set[0] != "0" || "N"+set[1] != n || len(set[2])/17 != len(set[3])/20 {
				t.Errorf("key change %v", set)
			}
			for i := 0; i < len(set[3]); i += 20 {
				enter(set[3][i : i+20])
			}
			enter(c.must(2, "VC", "N2", "P"+pan, "N7", eaField, tct, "N0", "H0001", at(2))[1])
		})
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// tidOf returns the 2014 token identifier of an instant, in six hex digits.
func tidOf(at time.Time) string {
	base := time.Date(2014, 1, 1, 0, 0, 0, 0, time.UTC)
	return fmt.Sprintf("%06X", int(at.Sub(base)/time.Minute))
}

// newMeter makes a virtual meter with a decoder key of the compliance key.
func newMeter(t *testing.T, ea, sgc, krn, ti int) *meter.Meter {
	t.Helper()
	raw, err := hex.DecodeString(complianceKey)
	if err != nil {
		t.Fatal(err)
	}
	vk, err := sts.NewVendingKey(sts.DKGA04, raw)
	if err != nil {
		t.Fatal(err)
	}
	p, err := sts.ParsePAN(pan)
	if err != nil {
		t.Fatal(err)
	}
	key, err := vk.DecoderKey(sts.KeyParams{PAN: p, EA: sts.EA(ea), KT: sts.DUTK, SGC: sts.SGC(sgc), KRN: sts.KRN(krn), TI: sts.TI(ti), BaseDate: 2014})
	if err != nil {
		t.Fatal(err)
	}
	m, err := meter.New(meter.Config{DRN: pan, EA: ea, TCT: 2, SGC: uint32(sgc), KRN: krn, TI: ti, KT: 2, KEN: 255, BaseDate: 2014,
		DecoderKey: key.AppendBytes(nil), Manufactured: noon.AddDate(0, -1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The queries, and the commands that take keys away again.
func TestQueriesAndDeletion(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{})
	c := newClient(t, r.address)
	c.loadKeys(r, group(123456), group(123457))
	if v := c.must(2, "DI"); v[0] != moduleID || v[1] != "STS64V10" {
		t.Errorf("DI %v", v)
	}
	if v := c.must(4, "QI"); v[0] != "SMID;SMI89051616;SPN1" || v[2] != "STS64V10" || len(v[3]) != 16 {
		t.Errorf("QI %v", v)
	}
	if v := c.must(2, "QD"); v[0] != "20251120120000" || v[1] != "1440" {
		t.Errorf("QD %v", v)
	}
	if v := c.must(4, "CQ"); v[0] != "4294967295" || v[1] != moduleID || len(v[2]) != 16 || v[3] != "20251120120000" {
		t.Errorf("CQ %v", v)
	}
	if v := c.must(1, "QK", "N1"); v[0] != "KMCTEST-KMC;STAACTIVE;REQ0;TVP20251120120000;CNT2" {
		t.Errorf("QK %v", v)
	}
	if status, _ := c.call("QK", "N2"); status != "45" {
		t.Errorf("QK past the end: %s", status)
	}
	if status, _ := c.call("QL", "N1"); status != "45" {
		t.Errorf("QL of an empty log: %s", status)
	}
	if v := c.must(1, "KD", "N1"); len(v[0]) != 6 {
		t.Errorf("KD %v", v)
	}
	if status, _ := c.call("KD", "N1"); status != "22" {
		t.Errorf("KD again: %s", status)
	}
	if v := c.must(1, "KX", "PTEST-KMC"); v[0] != "1" {
		t.Errorf("KX %v", v)
	}
	if status, _ := c.call("KX", "PTEST-KMC"); status != "27" {
		t.Errorf("KX again: %s", status)
	}
}
