package prismtoken_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// virtualMeter is a meter that knows its own decoder key only.
func virtualMeter(t *testing.T, k *kmc.KMC, c *prismtoken1.MeterConfigIn) *meter.Meter {
	t.Helper()
	g := must(k.Find(int(c.Sgc), int(c.Krn), 0))(t)
	pan := must(sts.ParsePAN(c.Drn))(t)
	vk := must(sts.NewVendingKey(sts.DKGA(g.DKG), unhex(t, g.Key)))(t)
	dk := must(vk.DecoderKey(sts.KeyParams{
		PAN: pan, EA: sts.EA(c.Ea), KT: sts.DUTK, SGC: sts.SGC(g.SGC), KRN: sts.KRN(g.KRN), TI: sts.TI(c.Ti), BaseDate: sts.BaseDate(g.BDT),
	}))(t)
	return must(meter.New(meter.Config{
		DRN: c.Drn, EA: int(c.Ea), TCT: int(c.Tct), SGC: uint32(g.SGC), KRN: g.KRN, TI: int(c.Ti), KT: 2, KEN: g.KEN, BaseDate: g.BDT,
		DecoderKey: dk.AppendBytes(nil),
	}))(t)
}

// TestManyClients lets 64 clients vend to few meters at the same time, with a
// restart in between: no identifier is used twice, and each meter accepts each
// of its tokens.
func TestManyClients(t *testing.T) {
	t.Parallel()
	const clients, each, rounds = 64, 8, 2
	r := newRig(t)
	k := r.load(group(123456, 1))
	r.user("vending", accounts.RoleIssueCredit)
	var configs []*prismtoken1.MeterConfigIn
	meters := make(map[string]*meter.Meter)
	for i := range 5 {
		pan := must(sts.NewPAN("12", fmt.Sprintf("%08d", i)))(t)
		c := newMeter(pan.DRN(), []int16{7, 11}[i%2], 123456)
		configs = append(configs, c)
		meters[c.Drn] = virtualMeter(t, k, c)
	}
	issued := make(map[string][]*prismtoken1.Token)
	var mu sync.Mutex
	for round := range rounds {
		token := r.signIn(r.client(), "vending")
		var wg sync.WaitGroup
		for n, c := range r.clients(clients) {
			wg.Go(func() {
				for i := range each {
					m := configs[(n+i)%len(configs)]
					got, err := c.IssueCreditToken(context.Background(), fmt.Sprintf("m-%d-%d-%d", round, n, i), token, m, 0, 10, 0, 0)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					issued[m.Drn] = append(issued[m.Drn], got...)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		r.reopen()
	}
	total := 0
	for drn, tokens := range issued {
		slices.SortFunc(tokens, func(a, b *prismtoken1.Token) int { return cmp.Compare(a.Tid, b.Tid) })
		for i, tok := range tokens {
			if i > 0 && tok.Tid == tokens[i-1].Tid {
				t.Errorf("meter %s: identifier %d twice", drn, tok.Tid)
			}
			if tok.Tid%1440 == 1 {
				t.Errorf("meter %s: reserved identifier %d", drn, tok.Tid)
			}
			res, err := meters[drn].Enter(tok.TokenDec, r.clock.Now().Add(24*time.Hour))
			if err != nil || !res.Accepted {
				t.Errorf("meter %s refuses %s: %v %v", drn, tok.TokenDec, res, err)
			}
		}
		total += len(tokens)
	}
	if want := clients * each * rounds; total != want {
		t.Errorf("%d tokens, expected %d", total, want)
	}
}

// newMeter is a configuration as clients send it.
func newMeter(drn string, ea int16, sgc int32) *prismtoken1.MeterConfigIn {
	m := prismtoken1.NewMeterConfigIn()
	m.Drn, m.Ea, m.Tct, m.Sgc, m.Krn, m.Ti, m.Ken = drn, ea, 2, sgc, 1, 1, 255
	return m
}

// TestNamedMinutes: a minute that the caller names gives one token, always the
// same, and never one that another token of the meter has.
func TestNamedMinutes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.load(group(123456, 1))
	r.user("vending", accounts.RoleIssueAny)
	ctx, c := context.Background(), r.client()
	token := r.signIn(c, "vending")
	m := newMeter("00000000000", 11, 123456)
	issue := func(amount float64, tokenTime, flags int64) (*prismtoken1.Token, error) {
		got, err := c.IssueCreditToken(ctx, "m", token, m, 0, amount, tokenTime, flags)
		if err != nil {
			return nil, err
		}
		return got[0], nil
	}
	minute := (epoch.Unix() - 725846400) / 60
	refused := func(what string, amount float64, tokenTime, flags int64) {
		t.Helper()
		got, err := issue(amount, tokenTime, flags)
		if e, ok := err.(*prismtoken1.ApiException); !ok || e.ECode != "EParamRange" {
			t.Errorf("%s: %+v, %v, expected EParamRange", what, got, err)
		}
	}
	special := must(issue(10, 0, 4))(t)
	if special.Tid%1440 != 1 || !special.IsReservedTid {
		t.Errorf("special reserved: %+v", special)
	}
	if again := must(issue(10, 0, 4))(t); !again.Equals(special) {
		t.Errorf("the same special token again is\n%+v\nbefore it was\n%+v", again, special)
	}
	refused("another special token of the day", 11, 0, 4)
	refused("the same by external clock", 11, epoch.Unix(), 5)
	if got := must(issue(11, epoch.Unix()-86400, 5))(t); got.Tid != special.Tid-1440 {
		t.Errorf("yesterday's special token: %+v", got)
	}

	adjusted := must(issue(10, minute, 2))(t)
	if int64(adjusted.Tid) != minute-11044800 || adjusted.IsReservedTid {
		t.Errorf("adjusted: %+v", adjusted)
	}
	if again := must(issue(10, minute, 2))(t); !again.Equals(adjusted) {
		t.Error("the same adjusted token differs")
	}
	ordinary := must(issue(10, 0, 0))(t)
	if ordinary.Tid != adjusted.Tid+1 {
		t.Errorf("the ordinary token has %d beside an adjusted one with %d", ordinary.Tid, adjusted.Tid)
	}
	refused("another adjusted token", 11, minute, 2)
	refused("the ordinary token's minute", 10, minute+1, 2)
	if got := must(issue(10, epoch.Unix(), 1))(t); got.Tid != ordinary.Tid+1 {
		t.Errorf("external clock: %+v", got)
	}
	r.reopen()
	c = r.client()
	token = r.signIn(c, "vending")
	if again := must(issue(10, minute, 2))(t); !again.Equals(adjusted) {
		t.Error("after a restart the same adjusted token differs")
	}
	refused("another special token after a restart", 11, 0, 4)
}

// TestReservedMinute: an ordinary token at 00:01 takes 00:02.
func TestReservedMinute(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.load(group(123456, 1))
	r.user("vending", accounts.RoleIssueCredit)
	r.clock.Set(time.Date(2026, 3, 2, 0, 1, 30, 0, time.UTC))
	c := r.client()
	got, err := c.IssueCreditToken(context.Background(), "m", r.signIn(c, "vending"), newMeter("00000000000", 7, 123456), 0, 1, 0, 0)
	if err != nil || got[0].Tid%1440 != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestAutomaticKeyChange: every reason for a key change, merged into one set.
func TestAutomaticKeyChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.load(group(123456, 1), group(123456, 2), group(654321, 1), group(222222, 1, func(g *kmc.Group) { g.KEN = 200 }),
		group(333333, 1), group(333333, 2, func(g *kmc.Group) { g.ACT = epoch.AddDate(0, 0, 1) }),
		group(444444, 1), group(444444, 2, func(g *kmc.Group) { g.BDT = 2035 }))
	r.user("vending", accounts.RoleIssueAny)
	ctx, c := context.Background(), r.client()
	token := r.signIn(c, "vending")
	to := func(sgc int32, krn, ti int16) *prismtoken1.MeterConfigAmendment {
		return &prismtoken1.MeterConfigAmendment{ToSgc: sgc, ToKrn: krn, ToTi: ti}
	}
	for name, tc := range map[string]struct {
		change func(m *prismtoken1.MeterConfigIn)
		kct    int
		sgc    int32
		krn    int16
		ti     int16
	}{
		"nothing new":             {func(m *prismtoken1.MeterConfigIn) { m.Sgc = 654321 }, 0, 654321, 1, 1},
		"newer revision":          {func(m *prismtoken1.MeterConfigIn) {}, 2, 123456, 2, 1},
		"newer revision refused":  {func(m *prismtoken1.MeterConfigIn) { m.AllowKrnUpdate = false }, 0, 123456, 1, 1},
		"not active yet":          {func(m *prismtoken1.MeterConfigIn) { m.Sgc = 333333 }, 0, 333333, 1, 1},
		"new group":               {func(m *prismtoken1.MeterConfigIn) { m.Sgc, m.NewConfig_ = 654321, to(333333, 1, 1) }, 2, 333333, 1, 1},
		"new group, newer key":    {func(m *prismtoken1.MeterConfigIn) { m.Sgc, m.NewConfig_ = 654321, to(123456, 1, 3) }, 2, 123456, 2, 3},
		"new tariff":              {func(m *prismtoken1.MeterConfigIn) { m.Sgc, m.NewConfig_ = 654321, to(654321, 1, 7) }, 2, 654321, 1, 7},
		"same configuration":      {func(m *prismtoken1.MeterConfigIn) { m.Sgc, m.NewConfig_ = 654321, to(654321, 1, 1) }, 0, 654321, 1, 1},
		"other expiry":            {func(m *prismtoken1.MeterConfigIn) { m.Sgc = 222222 }, 2, 222222, 1, 1},
		"other expiry refused":    {func(m *prismtoken1.MeterConfigIn) { m.Sgc, m.AllowKenUpdate = 222222, false }, 0, 222222, 1, 1},
		"three tokens":            {func(m *prismtoken1.MeterConfigIn) { m.Allow3Kct = true }, 3, 123456, 2, 1},
		"four tokens":             {func(m *prismtoken1.MeterConfigIn) { m.Ea = 11 }, 4, 123456, 2, 1},
		"four although three may": {func(m *prismtoken1.MeterConfigIn) { m.Ea, m.Allow3Kct = 11, true }, 4, 123456, 2, 1},
	} {
		m := newMeter("00000000000", 7, 123456)
		tc.change(m)
		v := virtualMeter(t, k, m)
		got, err := c.IssueCreditToken(ctx, "m", token, m, 0, 10, 0, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got) != tc.kct+1 {
			t.Errorf("%s: %d tokens, expected %d", name, len(got), tc.kct+1)
			continue
		}
		last := got[len(got)-1]
		if last.TokenClass != 0 || last.Sgc != tc.sgc || last.Krn != tc.krn || last.Ti != tc.ti || last.NewConfig_ != nil {
			t.Errorf("%s: the last token is %+v", name, last)
		}
		for i, tok := range got {
			if i < tc.kct && (tok.Subclass != []int16{3, 4, 8, 9}[i] || tok.Sgc != m.Sgc || (tok.NewConfig_ != nil) != (i == 0)) {
				t.Errorf("%s: key change token %d is %+v", name, i, tok)
			}
			if m.Allow3Kct && m.Ea == 7 {
				continue // the layout of the third token is not public
			}
			res, err := v.Enter(tok.TokenDec, r.clock.Now().Add(time.Hour))
			if err != nil || !res.Accepted {
				t.Errorf("%s: the meter refuses token %d: %v %v", name, i, res, err)
			}
		}
	}

	// A later base date sets the rollover bit.
	m := newMeter("00000000000", 7, 444444)
	m.AllowKrnUpdate = false
	set, err := c.IssueKeyChangeTokens(ctx, "m", token, m, to(444444, 2, 1))
	if err != nil || len(set) != 2 || !set[0].NewConfig_.Rollover {
		t.Errorf("to a later base date: %+v, %v", set, err)
	}
}
