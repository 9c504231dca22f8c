package tsm_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
)

const (
	moduleID = "89051616"
	pan11    = "600727000000000009"
	unlimit  = tsm.Unlimited
)

var start = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// rig is a module with a KMC that knows it.
type rig struct {
	t     testing.TB
	vault *memVault
	clock *clock.Fake
	m     *tsm.Module
	kmc   *kmc.KMC
}

func newRig(t testing.TB, change ...func(*tsm.Config)) *rig {
	t.Helper()
	r := &rig{t: t, vault: newVault(), clock: clock.NewFake(start)}
	r.m = r.open(r.vault, change...)
	r.kmc = newKMC(t, "TEST-KMC")
	r.introduce(r.kmc)
	return r
}

func (r *rig) open(v tsm.Vault, change ...func(*tsm.Config)) *tsm.Module {
	r.t.Helper()
	cfg := tsm.Config{Vault: v, ModuleID: moduleID, Clock: r.clock, Created: start}
	for _, c := range change {
		c(&cfg)
	}
	m, err := tsm.Open(context.Background(), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func newKMC(t testing.TB, name string) *kmc.KMC {
	t.Helper()
	k, err := kmc.Init(t.TempDir(), name, start.AddDate(-1, 0, 0), start.AddDate(5, 0, 0), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (r *rig) introduce(k *kmc.KMC) {
	r.t.Helper()
	if _, err := k.AddModule(r.m.PublicKeyRecord()); err != nil {
		r.t.Fatal(err)
	}
}

// group returns a unique key of the test supply group, changed by change.
func group(sgc int, change ...func(*kmc.Group)) kmc.Group {
	g := kmc.Group{
		SGC: sgc, KRN: 1, KTC: "VUDK", BDT: 2014, DKG: 4, KEN: 255, SBM: 0xFFFF, ULM: unlimit, CLM: unlimit,
		ACT: start.AddDate(-1, 0, 0), Refresh: 90, SGN: "DEMO",
	}
	for _, c := range change {
		c(&g)
	}
	return g
}

// klf adds groups to the KMC, authorises everything and runs the agreement up
// to the parsed key load file.
func (r *rig) klf(k *kmc.KMC, groups ...kmc.Group) keyload.KLF {
	r.t.Helper()
	for _, g := range groups {
		if _, err := k.AddGroup(g); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := k.AuthoriseAll(moduleID); err != nil {
		r.t.Fatal(err)
	}
	request, err := r.m.KeyAgreement(context.Background(), r.publicKey(k))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.answer(k, request)
}

func (r *rig) publicKey(k *kmc.KMC) string {
	r.t.Helper()
	key, err := k.PublicKey()
	if err != nil {
		r.t.Fatal(err)
	}
	return key.Record().String()
}

func (r *rig) answer(k *kmc.KMC, request string) keyload.KLF {
	r.t.Helper()
	answer, err := k.Answer(request, r.clock.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	file, err := keyload.ParseKLF(answer.Text)
	if err != nil {
		r.t.Fatal(err)
	}
	return file
}

// load brings a key load file into the module, through to ACTIVE.
func (r *rig) load(file keyload.KLF) {
	r.t.Helper()
	ctx := context.Background()
	if _, _, err := r.m.ProcessResponse(ctx, file.Response); err != nil {
		r.t.Fatal(err)
	}
	for _, rec := range file.Keys {
		if _, err := r.m.LoadKey(ctx, file.KMC, rec.String(), 0); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := r.m.Finish(ctx, file.KMC); err != nil {
		r.t.Fatal(err)
	}
}

// with loads groups in one go.
func (r *rig) with(groups ...kmc.Group) *rig {
	r.t.Helper()
	r.load(r.klf(r.kmc, groups...))
	return r
}

// tid is the token identifier of the clock's minute.
func (r *rig) tid(bdt int) uint32 {
	base := time.Date(bdt, 1, 1, 0, 0, 0, 0, time.UTC)
	return uint32(r.clock.Now().Sub(base) / time.Minute)
}

func (r *rig) creditInput() tsm.CreditInput {
	return tsm.CreditInput{Register: 1, PAN: pan11, TI: 1, EA: 11, TCT: 2, SubClass: 0, Amount: 102, TID: r.tid(2014)}
}

func (r *rig) credit(in tsm.CreditInput) (out tsm.Issued, err error) {
	err = r.vault.Update(context.Background(), func(tx tsm.Tx) error {
		out, err = r.m.Credit(tx, in)
		return err
	})
	return out, err
}

func (r *rig) attributes(register int) (a tsm.Attributes, err error) {
	err = r.vault.View(context.Background(), func(tx tsm.Tx) error {
		a, err = r.m.Attributes(tx, register)
		return err
	})
	return a, err
}

func (r *rig) slots() (s []tsm.Slot) {
	r.t.Helper()
	err := r.vault.View(context.Background(), func(tx tsm.Tx) error {
		var err error
		s, err = r.m.Slots(tx)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// want fails unless err is a refusal with this code.
func want(t testing.TB, err error, code tsm.Code) {
	t.Helper()
	if got := tsm.CodeOf(err); got != code {
		t.Errorf("code %s, want %s (error: %v)", got, code, err)
	}
}
