package tsm_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

func (r *rig) management(in tsm.ManagementInput) (out tsm.Issued, err error) {
	err = r.vault.Update(context.Background(), func(tx tsm.Tx) error {
		out, err = r.m.Management(tx, in)
		return err
	})
	return out, err
}

// Each rule of a credit token, with its code.
func TestCreditRules(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	cases := []struct {
		name  string
		key   func(*kmc.Group)
		input func(*tsm.CreditInput)
		after time.Duration // of the clock, between load and vend
		tid   time.Duration // of the token, off the clock
		code  tsm.Code
	}{
		{name: "ok", code: tsm.CodeOK},
		{name: "register 0", input: func(in *tsm.CreditInput) { in.Register = 0 }, code: tsm.CodePTVDRange},
		{name: "register 1000", input: func(in *tsm.CreditInput) { in.Register = 1000 }, code: tsm.CodePTVDRange},
		{name: "TID of 25 bits", input: func(in *tsm.CreditInput) { in.TID = 1 << 24 }, code: tsm.CodePTVDRange},
		{name: "amount of 17 bits", input: func(in *tsm.CreditInput) { in.Amount = 1 << 16 }, code: tsm.CodePTVDRange},
		{name: "currency of 21 bits", input: func(in *tsm.CreditInput) { in.SubClass, in.Amount = 4, 1<<20 }, code: tsm.CodePTVDRange},
		{name: "PAN check digit", input: func(in *tsm.CreditInput) { in.PAN = "600727000000000008" }, code: tsm.CodeInvalidPAN},
		{name: "PAN of 11 digits", input: func(in *tsm.CreditInput) { in.PAN = "00000000000" }, code: tsm.CodeInvalidPAN},
		{name: "EA 9", input: func(in *tsm.CreditInput) { in.EA = 9 }, code: tsm.CodeKeyParam},
		{name: "TI 100", input: func(in *tsm.CreditInput) { in.TI = 100 }, code: tsm.CodeKeyParam},
		{name: "TCT 100", input: func(in *tsm.CreditInput) { in.TCT = 100 }, code: tsm.CodeKeyParam},
		{name: "subclass 8", input: func(in *tsm.CreditInput) { in.SubClass = 8 }, code: tsm.CodeKeyParam},
		{name: "empty register", input: func(in *tsm.CreditInput) { in.Register = 2 }, code: tsm.CodeRegisterEmpty},
		{name: "EA11 from DKGA02", key: func(g *kmc.Group) { g.DKG = 2 }, code: tsm.CodeKeyParam},
		{name: "EA07 from DKGA02", key: func(g *kmc.Group) { g.DKG = 2 }, input: func(in *tsm.CreditInput) { in.EA = 7 }, code: tsm.CodeOK},
		{name: "DKGA01", key: func(g *kmc.Group) { g.DKG = 1 }, input: func(in *tsm.CreditInput) { in.EA = 7 }, code: tsm.CodeKeyParam},
		{name: "default key", key: func(g *kmc.Group) { g.KTC = "VDDK" }, code: tsm.CodeKeyType},
		{name: "common key, numeric", key: func(g *kmc.Group) { g.KTC = "VCDK" }, code: tsm.CodeKeyType},
		{name: "common key, card", key: func(g *kmc.Group) { g.KTC = "VCDK" }, input: func(in *tsm.CreditInput) { in.TCT = 1 }, code: tsm.CodeOK},
		{name: "subclass not in bitmap", key: func(g *kmc.Group) { g.SBM = 0xFFFE }, code: tsm.CodeSubclassNotAllowed},
		{name: "subclass in bitmap", key: func(g *kmc.Group) { g.SBM = 1 }, code: tsm.CodeOK},
		{name: "not yet active", key: func(g *kmc.Group) { g.ACT = start.Add(time.Second) }, code: tsm.CodeKeyNotYetActive},
		{name: "active now", key: func(g *kmc.Group) { g.ACT = start }, code: tsm.CodeOK},
		{name: "issue expired", key: func(g *kmc.Group) { g.IUT = start.Add(time.Hour) }, after: time.Hour + time.Second, code: tsm.CodeKeyIssueExpired},
		{name: "issued until now", key: func(g *kmc.Group) { g.IUT = start.Add(time.Hour) }, after: time.Hour, code: tsm.CodeOK},
		{name: "beyond KEN", key: func(g *kmc.Group) { g.KEN = 96 }, code: tsm.CodeKeyExpired},
		{name: "at KEN", key: func(g *kmc.Group) { g.KEN = 97 }, code: tsm.CodeOK},
		{name: "after EXP", key: func(g *kmc.Group) { g.EXP, g.IUT = start.Truncate(day), start.Add(90*day) }, after: 14 * time.Hour, code: tsm.CodeKeyIssueExpired},
		{name: "TID a day old", tid: -day, code: tsm.CodeOK},
		{name: "TID older", tid: -day - time.Minute, code: tsm.CodeTIDOutOfWindow},
		{name: "TID a day ahead", tid: day, code: tsm.CodeOK},
		{name: "TID further ahead", tid: day + time.Minute, code: tsm.CodeTIDOutOfWindow},
		{name: "unit limit zero", key: func(g *kmc.Group) { g.ULM = 0 }, code: tsm.CodeInsufficientCredit},
		{name: "unit limit below", key: func(g *kmc.Group) { g.ULM = 101 }, code: tsm.CodeInsufficientCredit},
		{name: "unit limit equal", key: func(g *kmc.Group) { g.ULM = 102 }, code: tsm.CodeOK},
		{name: "currency does not use units", key: func(g *kmc.Group) { g.ULM = 0 }, input: func(in *tsm.CreditInput) { in.SubClass = 4 }, code: tsm.CodeOK},
		{name: "currency limit below", key: func(g *kmc.Group) { g.CLM = 101 }, input: func(in *tsm.CreditInput) { in.SubClass = 7 }, code: tsm.CodeInsufficientCredit},
		{name: "units do not use currency", key: func(g *kmc.Group) { g.CLM = 0 }, code: tsm.CodeOK},
		{name: "refund at zero", key: func(g *kmc.Group) { g.CLM = 0 }, input: func(in *tsm.CreditInput) { in.SubClass, in.Amount = 4, 0x80001 }, code: tsm.CodeInsufficientCredit},
		{name: "more currency than any limit", key: func(g *kmc.Group) { g.CLM = unlimit - 1 }, input: func(in *tsm.CreditInput) { in.SubClass, in.Amount = 4, 0x7FFFF }, code: tsm.CodeInsufficientCredit},
		{name: "unlimited currency", input: func(in *tsm.CreditInput) { in.SubClass, in.Amount = 4, 0x7FFFF }, code: tsm.CodeOK},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := group(123456)
			if c.key != nil {
				c.key(&g)
			}
			r := newRig(t).with(g)
			r.clock.Advance(c.after)
			in := r.creditInput()
			in.TID = uint32(int(in.TID) + int(c.tid/time.Minute))
			if c.input != nil {
				c.input(&in)
			}
			out, err := r.credit(in)
			want(t, err, c.code)
			if c.code == tsm.CodeOK && len(out.Dec) != 20 {
				t.Errorf("no token: %+v", out)
			}
			if c.code != tsm.CodeOK && out != (tsm.Issued{}) {
				t.Errorf("a refused request has the result %+v", out)
			}
		})
	}
}

// A request that breaks every rule is told them in the documented order.
func TestCreditCheckOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	g := group(123456, func(g *kmc.Group) {
		g.KTC, g.SBM, g.KEN, g.ULM, g.CLM = "VDDK", 0, 0, 0, 0
		g.ACT, g.IUT = start.Add(48*time.Hour), start.Add(-time.Hour)
	})
	file := r.klf(r.kmc, g)
	ctx := context.Background()
	if _, _, err := r.m.ProcessResponse(ctx, file.Response); err != nil {
		t.Fatal(err)
	}
	in := tsm.CreditInput{Register: 0, PAN: "1", EA: 3, TI: 1, TCT: 2, TID: 0}
	steps := []struct {
		code tsm.Code
		fix  func()
	}{
		{tsm.CodePTVDRange, func() { in.Register = 1 }},
		{tsm.CodeInvalidPAN, func() { in.PAN = pan11 }},
		{tsm.CodeKeyParam, func() { in.EA = 11 }},
		{tsm.CodeRegisterEmpty, func() {
			if _, err := r.m.LoadKey(ctx, file.KMC, file.Keys[0].String(), 1); err != nil {
				t.Fatal(err)
			}
		}},
		{tsm.CodeKMCKeyState, func() {
			if _, err := r.m.Finish(ctx, file.KMC); err != nil {
				t.Fatal(err)
			}
		}},
		{tsm.CodeKeyType, func() { r.reload(&g, func(g *kmc.Group) { g.KTC = "VUDK" }) }},
		{tsm.CodeSubclassNotAllowed, func() { r.reload(&g, func(g *kmc.Group) { g.SBM = 1 }) }},
		{tsm.CodeKeyNotYetActive, func() { r.reload(&g, func(g *kmc.Group) { g.ACT = start.AddDate(-1, 0, 0) }) }},
		{tsm.CodeKeyIssueExpired, func() { r.reload(&g, func(g *kmc.Group) { g.IUT = start.AddDate(1, 0, 0) }); in.TID = 0xFFFFFF }},
		{tsm.CodeKeyExpired, func() { r.reload(&g, func(g *kmc.Group) { g.KEN = 255 }) }},
		{tsm.CodeTIDOutOfWindow, func() { in.TID = r.tid(2014) }},
		{tsm.CodeInsufficientCredit, func() { r.reload(&g, func(g *kmc.Group) { g.ULM = 1000 }) }},
		{tsm.CodeOK, func() {}},
	}
	for _, s := range steps {
		_, err := r.credit(in)
		want(t, err, s.code)
		s.fix()
	}
}

// reload replaces the module's only key by one with other attributes.
func (r *rig) reload(g *kmc.Group, change func(*kmc.Group)) {
	r.t.Helper()
	change(g)
	r.kmc = newKMC(r.t, "TEST-KMC")
	r.introduce(r.kmc)
	r.with(*g)
}

// Limits are debited by the decoded value; a refund is not credited back.
func TestDebitByDecodedValue(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(group(123456, func(g *kmc.Group) { g.ULM, g.CLM = 200000, 50000000 }))
	in := r.creditInput()
	in.Amount = 0x416A // 20004 units: the encoding rounds up
	out, err := r.credit(in)
	if err != nil {
		t.Fatal(err)
	}
	if units := int64(sts.Amount16(0x416A).Units()); out.Units != units || out.Key.ULM != 200000-uint32(units) {
		t.Errorf("units %d, left %d; want %d, %d", out.Units, out.Key.ULM, units, 200000-units)
	}
	for _, c := range []struct {
		amount uint32
		units  int64
	}{{0x060AA, 100004}, {0x80000 | 0x060AA, -100004}} {
		before, err := r.attributes(1)
		if err != nil {
			t.Fatal(err)
		}
		in.SubClass, in.Amount = 4, c.amount
		out, err := r.credit(in)
		if err != nil {
			t.Fatal(err)
		}
		after, err := r.attributes(1)
		if err != nil {
			t.Fatal(err)
		}
		if out.Units != c.units || before.CLM-after.CLM != uint32(max(c.units, 0)) || after.ULM != before.ULM {
			t.Errorf("amount %05X: units %d, CLM %d -> %d, ULM %d -> %d", c.amount, out.Units, before.CLM, after.CLM, before.ULM, after.ULM)
		}
	}
}

func TestManagement(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(group(123456, func(g *kmc.Group) { g.KTC = "VDDK"; g.ULM = 0 }))
	for sub := -1; sub <= 16; sub++ {
		in := tsm.ManagementInput{Register: 1, PAN: pan11, TI: 1, EA: 11, TCT: 2, SubClass: sub, Value: 0xFFFF, TID: r.tid(2014)}
		if sub == 5 { // clear tamper carries nothing
			_, err := r.management(in)
			want(t, err, tsm.CodeKeyParam)
			in.Value = 0
		}
		out, err := r.management(in)
		switch sub {
		case 0, 1, 2, 5, 6, 7, 10, 11, 12, 13, 14, 15:
			if err != nil {
				t.Errorf("subclass %d: %v", sub, err)
				continue
			}
			got, ok := meterDecodes(t, r.kmc, out.Dec, 11).(sts.Management)
			if !ok || int(got.SubClass) != sub || got.Value != in.Value || uint32(got.TID) != in.TID {
				t.Errorf("subclass %d: the meter reads %+v", sub, got)
			}
		default:
			want(t, err, tsm.CodeKeyParam)
		}
	}
	in := tsm.ManagementInput{Register: 1, PAN: pan11, TI: 1, EA: 11, TCT: 2, SubClass: 1, TID: r.tid(2014) + 2000}
	_, err := r.management(in)
	want(t, err, tsm.CodeTIDOutOfWindow)
}

// The key changes that a meter may be led through.

// A class 0 token under a default key is found out, and a token beyond KEN.

// Every token is in the log, in the transaction of the token; no log, no token.
func TestNoLogNoToken(t *testing.T) {
	t.Parallel()
	var log []tsm.Event
	broken := false
	r := newRig(t, func(c *tsm.Config) {
		c.Audit = func(_ tsm.Tx, e tsm.Event) error {
			if broken {
				return errors.New("disk full")
			}
			log = append(log, kept(e))
			return nil
		}
	}).with(group(123456, func(g *kmc.Group) { g.ULM = 1000 }))
	in := r.creditInput()
	in.Actor, in.Note = "user1", [2]string{"messageId", "m-1"}
	out, err := r.credit(in)
	if err != nil {
		t.Fatal(err)
	}
	last := log[len(log)-1]
	detail := detailOf(last)
	if last.Kind != "token.credit" || last.Actor != "user1" || last.Subject != pan11 || detail["messageId"] != "m-1" ||
		detail["units"] != "102" || detail["tid"] != fmt.Sprintf("%06X", in.TID) || !last.Time.Equal(start) {
		t.Errorf("audit entry %+v", last)
	}
	for _, v := range detail {
		if v == out.Dec || v == out.Hex {
			t.Error("the log holds the token itself")
		}
	}
	broken = true
	before, _ := r.attributes(1)
	if out, err := r.credit(in); err == nil {
		t.Errorf("a token without a log entry: %+v", out)
	}
	if after, _ := r.attributes(1); after.ULM != before.ULM {
		t.Errorf("ULM %d -> %d without a token", before.ULM, after.ULM)
	}
}
