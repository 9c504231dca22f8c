package meter_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// fataler is what *testing.T and *rapid.T have in common here.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// issuer makes tokens for one meter from fixed test keys.
type issuer struct {
	engine *sts.Engine
	key    sts.DecoderKey
	config meter.Config
}

// testKey returns the decoder key number n of an algorithm.
func testKey(t fataler, ea, kt int, n byte) sts.DecoderKey {
	t.Helper()
	raw := bytes.Repeat([]byte{0x10 + n}, 16)
	k, err := sts.NewDecoderKey(sts.EA(ea), sts.KeyType(kt), raw[:sts.EA(ea).KeySize()])
	if err != nil {
		t.Fatalf("test key: %v", err)
	}
	return k
}

// newIssuer makes a meter's issuer; edit changes the meter's configuration.
func newIssuer(t fataler, ea int, edit func(*meter.Config)) *issuer {
	t.Helper()
	c := meter.Config{
		DRN: "0100000000008", EA: ea, TCT: 2, SGC: 123456, KRN: 1, TI: 1, KT: 2, KEN: 255, BaseDate: 2014,
		Manufactured: time.Date(2014, 1, 2, 0, 0, 0, 0, time.UTC),
	}
	if edit != nil {
		edit(&c)
	}
	key := testKey(t, ea, c.KT, 1)
	c.DecoderKey = key.AppendBytes(nil)
	return &issuer{sts.NewEngine(nil, sts.TableDriven), key, c}
}

func (i *issuer) meter(t fataler) *meter.Meter {
	t.Helper()
	m, err := meter.New(i.config)
	if err != nil {
		t.Fatalf("new meter: %v", err)
	}
	return m
}

// token encrypts a message as the issuing side would, without its checks of key type.
func (i *issuer) token(t fataler, m sts.Message) string {
	t.Helper()
	a, err := m.APDU()
	if err != nil {
		t.Fatalf("lay out %+v: %v", m, err)
	}
	return i.raw(t, a.Class(), a.Block())
}

// raw encrypts a block with whatever it holds, also under a default key.
func (i *issuer) raw(t fataler, class sts.Class, block uint64) string {
	t.Helper()
	key := i.key
	if key.KeyType() == sts.DDTK {
		var err error
		if key, err = sts.NewDecoderKey(key.EA(), sts.DUTK, key.AppendBytes(nil)); err != nil {
			t.Fatalf("key: %v", err)
		}
	}
	token, err := i.engine.Encrypt(key, sts.NewAPDU(class, block))
	if err != nil {
		t.Fatalf("encrypt: %v", err)
	}
	return token.String()
}

func (i *issuer) credit(t fataler, resource sts.Resource, tid sts.TID, units uint64) string {
	t.Helper()
	amount, err := sts.EncodeAmount(units)
	if err != nil {
		t.Fatalf("amount: %v", err)
	}
	return i.token(t, sts.Credit{Resource: resource, RND: 5, TID: tid, Amount: amount})
}

func (i *issuer) management(t fataler, sub sts.SubClass, tid sts.TID, value uint16) string {
	t.Helper()
	return i.token(t, sts.Management{SubClass: sub, RND: 5, TID: tid, Value: value})
}

// change makes the tokens of a key change; the issuer itself keeps the old key.
func (i *issuer) change(t fataler, c sts.KeyChange, count int) []string {
	t.Helper()
	sections, err := c.Sections(count)
	if err != nil {
		t.Fatalf("sections: %v", err)
	}
	var tokens []string
	for _, s := range sections {
		tokens = append(tokens, i.token(t, s))
	}
	return tokens
}

// enter enters a token and wants the answer.
func enter(t fataler, m *meter.Meter, token string, want meter.Code) meter.Result {
	t.Helper()
	return enterAt(t, m, token, noon, want)
}

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func enterAt(t fataler, m *meter.Meter, token string, now time.Time, want meter.Code) meter.Result {
	t.Helper()
	r, err := m.Enter(token, now)
	if err != nil {
		t.Fatalf("enter %s: %v", token, err)
	}
	if r.Code != want {
		t.Fatalf("enter %s: %s, want %s", token, r, want)
	}
	if accepted := want == meter.Accepted || want == meter.SectionHeld; r.Accepted != accepted {
		t.Fatalf("enter %s: accepted %t with code %s", token, r.Accepted, want)
	}
	if (r.Reason == "") != r.Accepted {
		t.Fatalf("enter %s: accepted %t with reason %q", token, r.Accepted, r.Reason)
	}
	return r
}

func marshal(t fataler, m *meter.Meter) []byte {
	t.Helper()
	p, err := m.State().Marshal()
	if err != nil {
		t.Fatalf("marshal state: %v", err)
	}
	return p
}

var eas = map[string]int{"EA07": 7, "EA11": 11}

// both runs a test for each algorithm.
func both(t *testing.T, test func(t *testing.T, ea int)) {
	t.Parallel()
	for name, ea := range eas {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, ea)
		})
	}
}
