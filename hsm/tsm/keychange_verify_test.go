package tsm_test

import (
	"context"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

func (r *rig) keyChange(in tsm.KeyChangeInput) (out tsm.KeySet, err error) {
	err = r.vault.Update(context.Background(), func(tx tsm.Tx) error {
		out, err = r.m.KeyChange(tx, in)
		return err
	})
	return out, err
}

func TestKeyChangeRules(t *testing.T) {
	t.Parallel()
	type change struct {
		name     string
		from, to func(*kmc.Group)
		input    func(*tsm.KeyChangeInput)
		after    time.Duration
		code     tsm.Code
		rollover bool
	}
	ktc := func(k string) func(*kmc.Group) { return func(g *kmc.Group) { g.KTC = k } }
	bdt := func(y int) func(*kmc.Group) { return func(g *kmc.Group) { g.BDT = y } }
	cases := []change{
		{name: "same type", code: tsm.CodeOK},
		{name: "default to unique", from: ktc("VDDK"), code: tsm.CodeOK},
		{name: "unique to default", to: ktc("VDDK"), code: tsm.CodeOK},
		{name: "default to common", from: ktc("VDDK"), to: ktc("VCDK"), code: tsm.CodeOK},
		{name: "common to common", from: ktc("VCDK"), to: ktc("VCDK"), code: tsm.CodeOK},
		{name: "unique to common", to: ktc("VCDK"), code: tsm.CodeKeyChangeNotAllowed},
		{name: "common to unique", from: ktc("VCDK"), code: tsm.CodeKeyChangeNotAllowed},
		{name: "later base date", to: bdt(2035), code: tsm.CodeOK, rollover: true},
		{name: "earlier base date", to: bdt(1993), code: tsm.CodeKeyChangeNotAllowed},
		{name: "other cluster", to: func(g *kmc.Group) { g.CLU = 1 }, code: tsm.CodeKeyChangeNotAllowed},
		{name: "new key not yet active", to: func(g *kmc.Group) { g.ACT = start.Add(time.Hour) }, code: tsm.CodeKeyNotYetActive},
		{name: "old key not yet active", from: func(g *kmc.Group) { g.ACT = start.Add(time.Hour) }, code: tsm.CodeOK},
		{name: "old key's issue expired", from: func(g *kmc.Group) { g.IUT = start.Add(time.Hour) }, after: 2 * time.Hour, code: tsm.CodeKeyIssueExpired},
		{name: "new key's issue expired", to: func(g *kmc.Group) { g.IUT = start.Add(time.Hour) }, after: 2 * time.Hour, code: tsm.CodeKeyIssueExpired},
		{name: "away from an expired key", from: func(g *kmc.Group) { g.KEN = 1 }, code: tsm.CodeOK},
		{name: "to an expired key", to: func(g *kmc.Group) { g.KEN = 2 }, code: tsm.CodeOK},
		{name: "both keys expired", from: func(g *kmc.Group) { g.KEN = 1 }, to: func(g *kmc.Group) { g.KEN = 2 }, code: tsm.CodeKeyChangeNotAllowed},
		{name: "three tokens for EA11", input: func(in *tsm.KeyChangeInput) { in.NumTokens = 3 }, code: tsm.CodeInvalidNumTokens},
		{name: "two tokens for EA07", input: func(in *tsm.KeyChangeInput) { in.EA, in.NumTokens = 7, 2 }, code: tsm.CodeOK},
		{name: "three tokens for EA07", input: func(in *tsm.KeyChangeInput) { in.EA, in.NumTokens = 7, 3 }, code: tsm.CodeOK},
		{name: "four tokens for EA07", input: func(in *tsm.KeyChangeInput) { in.EA, in.NumTokens = 7, 4 }, code: tsm.CodeInvalidNumTokens},
		{name: "new TI 100", input: func(in *tsm.KeyChangeInput) { in.TINew = 100 }, code: tsm.CodeKeyParam},
		{name: "empty new register", input: func(in *tsm.KeyChangeInput) { in.RegisterNew = 3 }, code: tsm.CodeRegisterEmpty},
		{name: "register 0", input: func(in *tsm.KeyChangeInput) { in.RegisterNew = 0 }, code: tsm.CodePTVDRange},
		{name: "bad PAN", input: func(in *tsm.KeyChangeInput) { in.PAN = "" }, code: tsm.CodeInvalidPAN},
		{name: "29 before 85", to: bdt(1993), input: func(in *tsm.KeyChangeInput) { in.NumTokens = 9 }, code: tsm.CodeKeyChangeNotAllowed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			from, to := group(100001), group(100002)
			if c.from != nil {
				c.from(&from)
			}
			if c.to != nil {
				c.to(&to)
			}
			r := newRig(t).with(from, to)
			r.clock.Advance(c.after)
			in := tsm.KeyChangeInput{RegisterOld: 1, RegisterNew: 2, PAN: pan11, TIOld: 1, EA: 11, TCT: 2, TINew: 7, NumTokens: 4}
			if c.input != nil {
				c.input(&in)
			}
			set, err := r.keyChange(in)
			want(t, err, c.code)
			if c.code != tsm.CodeOK {
				return
			}
			if set.Rollover != c.rollover || len(set.Tokens) != in.NumTokens {
				t.Errorf("rollover %v, %d tokens", set.Rollover, len(set.Tokens))
			}
			var sections sts.KeySections
			for _, tok := range set.Tokens {
				s, ok := meterDecodes(t, r.kmc, tok.Dec, in.EA).(sts.KeySection)
				if !ok {
					t.Fatalf("token %s is no key section", tok.Dec)
				}
				if sections, err = sections.With(s); err != nil {
					t.Fatal(err)
				}
			}
			got, complete, err := sections.Complete()
			if err != nil || !complete || got.KRN != 1 || got.TI != 7 || int(got.KEN) != to.KEN || got.Rollover != c.rollover {
				t.Errorf("the meter takes %+v, %v, %v", got, complete, err)
			}
			if sections.CarriesSGC() && got.SGC != 100002 {
				t.Errorf("the meter takes SGC %v", got.SGC)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(group(123456), group(200000, func(g *kmc.Group) { g.KTC = "VDDK" }))
	in := r.creditInput()
	token, err := r.credit(in)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(in tsm.VerifyInput) (v tsm.Verified, err error) {
		err = r.vault.View(context.Background(), func(tx tsm.Tx) error {
			v, err = r.m.Verify(tx, in)
			return err
		})
		return v, err
	}
	ok := tsm.VerifyInput{Register: 1, PAN: pan11, TI: 1, EA: 11, Token: token.Dec}
	v, err := verify(ok)
	if err != nil || v.Result != tsm.CodeOK || v.Class != 0 || v.SubClass != 0 || v.Amount != 102 || v.Units != 102 || v.TID != in.TID {
		t.Errorf("verified %+v, %v", v, err)
	}
	for name, c := range map[string]struct {
		change func(*tsm.VerifyInput)
		result tsm.Code
		err    tsm.Code
	}{
		"other TI":       {func(in *tsm.VerifyInput) { in.TI = 2 }, tsm.CodeTokenCRC, tsm.CodeOK},
		"mistyped":       {func(in *tsm.VerifyInput) { in.Token = "58625789986991357486" }, tsm.CodeTokenCRC, tsm.CodeOK},
		"no token":       {func(in *tsm.VerifyInput) { in.Token = "123" }, "", tsm.CodePTVDEncoding},
		"too large":      {func(in *tsm.VerifyInput) { in.Token = "99999999999999999999" }, "", tsm.CodePTVDEncoding},
		"PAN":            {func(in *tsm.VerifyInput) { in.PAN = "6" }, "", tsm.CodeInvalidPAN},
		"EA":             {func(in *tsm.VerifyInput) { in.EA = 1 }, "", tsm.CodeKeyParam},
		"empty register": {func(in *tsm.VerifyInput) { in.Register = 9 }, "", tsm.CodeRegisterEmpty},
		"register 1000":  {func(in *tsm.VerifyInput) { in.Register = 1000 }, "", tsm.CodePTVDRange},
	} {
		in := ok
		c.change(&in)
		v, err := verify(in)
		want(t, err, c.err)
		if err == nil && (v.Result != c.result || v.TID != 0 || v.Amount != 0) {
			t.Errorf("%s: %+v", name, v)
		}
	}
	r.clock.Advance(91 * 24 * time.Hour)
	if v, err := verify(ok); err != nil || v.Result != tsm.CodeKeyIssueExpired {
		t.Errorf("after IUT: %+v, %v", v, err)
	}
}

func TestVerifyDefaultAndExpiredKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(
		group(100000, func(g *kmc.Group) { g.KTC, g.Key = "VDDK", complianceKey }),
		group(100001, func(g *kmc.Group) { g.KEN, g.Key = 97, complianceKey }))
	vk, err := sts.NewVendingKey(sts.DKGA04, []byte("\xAB\xAB\xAB\xAB\xAB\xAB\xAB\xAB\x94\x94\x94\x94\x94\x94\x94\x94\x01\x23\x45\x67"))
	if err != nil {
		t.Fatal(err)
	}
	pan, err := sts.ParsePAN(pan11)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		register int
		sgc      sts.SGC
		kt       sts.KeyType
		tid      sts.TID
		result   tsm.Code
	}{
		{1, 100000, sts.DDTK, 85740, tsm.CodeDDTKCredit},
		{2, 100001, sts.DUTK, 98 << 16, tsm.CodeKeyExpired},
		{2, 100001, sts.DUTK, 97 << 16, tsm.CodeOK},
	} {
		dk, err := vk.DecoderKey(sts.KeyParams{PAN: pan, EA: sts.EA11, KT: c.kt, SGC: c.sgc, KRN: 1, TI: 1, BaseDate: 2014})
		if err != nil {
			t.Fatal(err)
		}
		apdu, err := sts.Credit{TID: c.tid, Amount: 1}.APDU()
		if err != nil {
			t.Fatal(err)
		}
		e := sts.NewEngine(nil, sts.TableDriven)
		raw := make([]byte, 0, 16)
		asUnique, err := sts.NewDecoderKey(sts.EA11, sts.DUTK, dk.AppendBytes(raw)) // a forger ignores the key type
		if err != nil {
			t.Fatal(err)
		}
		token, err := e.Encrypt(asUnique, apdu)
		if err != nil {
			t.Fatal(err)
		}
		err = r.vault.View(context.Background(), func(tx tsm.Tx) error {
			v, err := r.m.Verify(tx, tsm.VerifyInput{Register: c.register, PAN: pan11, TI: 1, EA: 11, Token: token.String()})
			if err == nil && v.Result != c.result {
				t.Errorf("register %d, TID %X: result %s, want %s", c.register, c.tid, v.Result, c.result)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
