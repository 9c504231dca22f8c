package conductor_test

import (
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
)

// The worked frames, byte for byte, against a running server.
func TestWorkedFrames(t *testing.T) {
	t.Parallel()
	frames, _ := readVectors(t)
	r := newRig(t, option{module: func(c *tsm.Config) { c.TestMode = true }})
	client := newClient(t, r.address)
	client.loadKeys(r,
		group(201457), group(201458), group(201459), group(201460), group(201461),
		group(203557, func(g *kmc.Group) { g.KRN, g.BDT = 6, 2035 }))
	c := r.dial()
	for _, pair := range []struct{ request, response string }{
		{"echo_req", "echo_rsp"}, {"di_req", "di_rsp"}, {"vc_req", "vc_rsp"}, {"vt_req", "vt_rsp"},
	} {
		got := c.exchange(unhex(t, frames[pair.request].TCP))
		if want := frames[pair.response].TCP; strings.ToUpper(hex.EncodeToString(got)) != want {
			t.Errorf("%s: %X\nwant %s", pair.request, got, want)
		}
	}
	// Requests of the page whose responses it does not give.
	for _, name := range []string{"ga_req", "vm_req", "vk_req"} {
		got := string(c.exchange(unhex(t, frames[name].TCP))[8:])
		if want := strings.Replace(frames[name].Text[:5], "?", "!", 1) + "00"; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got, want := c.exchange(frameOf("SM?QD")), frames["qd_rsp"].TCP; strings.ToUpper(hex.EncodeToString(got)) != want {
		t.Errorf("SM?QD: %X\nwant %s", got, want)
	}
	bad := unhex(t, frames["di_req"].TCP)
	bad[len(bad)-2] ^= 1
	for _, c2 := range []struct {
		request  []byte
		response string
	}{{bad, "gler_bad_crc"}, {frameOf("SM?ZZ"), "gler_bad_hdr"}} {
		if got, want := c.exchange(c2.request), frames[c2.response].TCP; strings.ToUpper(hex.EncodeToString(got)) != want {
			t.Errorf("%s: %X\nwant %s", c2.response, got, want)
		}
	}
}

// The limit's frame, from a key that has none left.
func TestWorkedLimitFrame(t *testing.T) {
	t.Parallel()
	frames, _ := readVectors(t)
	r := newRig(t, option{module: func(c *tsm.Config) { c.TestMode = true }})
	newClient(t, r.address).loadKeys(r, group(201457, func(g *kmc.Group) { g.ULM = 0 }))
	got := r.dial().exchange(unhex(t, frames["vc_req"].TCP))
	if want := frames["vc_err_limit"].TCP; strings.ToUpper(hex.EncodeToString(got)) != want {
		t.Errorf("%X, want %s", got, want)
	}
}

// The published key agreement, line by line, and the published error text when
// another VKLOADREQ was made meanwhile.
func TestWorkedKeyAgreement(t *testing.T) {
	t.Parallel()
	frames, keys := readVectors(t)
	line := func(name string) []byte { // a worked line, framed
		return frameLine(keys[name])
	}
	t.Run("load", func(t *testing.T) {
		t.Parallel()
		c := newRig(t, option{module: vectorModule(t, keys)}).dial()
		for _, step := range []struct{ request, want string }{
			{"kc_req", "SM!KC00P" + keys["VKLOAD.REQ.1"] + "~"},
			{"kr_req", "SM!KR00PTEST-KMC~N1~"},
			{"kl_req", "SM!KL00N1~P861952~"},
		} {
			if got := textOf(t, c.exchange(line(step.request))); got != step.want {
				t.Errorf("%s: %s\nwant %s", step.request, got, step.want)
			}
		}
		if got := textOf(t, c.exchange(frameOf("SM?KFPTEST-KMC~"))); got != "SM!KF00N1~" {
			t.Errorf("KF: %s", got)
		}
	})
	t.Run("outdated", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, option{module: vectorModule(t, keys)})
		c := r.dial()
		c.exchange(line("kc_req"))
		c.exchange(line("kc_req"))
		got := c.exchange(line("kr_req"))
		if want := frames["manual_extended_error"].TCP; strings.ToUpper(hex.EncodeToString(got)) != want {
			t.Errorf("%X\nwant %s", got, want)
		}
		if !strings.HasSuffix(string(got), "~AF0A\r") {
			t.Errorf("%q", got)
		}
	})
}

// GL!ER without a frame, where that is wanted.
func TestRawErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t, option{server: func(c *conductor.Config) { c.RawErrors = true }})
	c := r.dial()
	if _, err := c.Write(frameOf("SM?ZZ")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 12)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "GL!ER2166E5\r" {
		t.Errorf("%q, %v", got, err)
	}
	if text := textOf(t, c.exchange(frameOf("GL?EC0000512345"))); text != "GL!EC0000512345" {
		t.Errorf("%q: other responses are framed", text)
	}
}
