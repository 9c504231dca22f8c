package tsm_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// detailOf is all of an entry's detail.
func detailOf(e tsm.Event) map[string]string {
	out := map[string]string{}
	maps.Copy(out, e.Detail)
	for _, p := range e.Pairs {
		out[p[0]] = p[1]
	}
	return out
}

// kept is an event that outlives the call of Audit.
func kept(e tsm.Event) tsm.Event {
	e.Pairs = slices.Clone(e.Pairs)
	return e
}

// Every key operation is in the log once, in its own transaction.
func TestEveryKeyOperationIsAudited(t *testing.T) {
	t.Parallel()
	var log []tsm.Event
	base := newRig(t)
	_, key := licenceFor(t, base, 1)
	r := newRig(t, func(c *tsm.Config) {
		c.InstructionKey = &key.PublicKey
		c.Audit = func(_ tsm.Tx, e tsm.Event) error { log = append(log, kept(e)); return nil }
	})
	r.vault.once = true
	ctx := tsm.By(context.Background(), "somebody")
	file := r.klf(r.kmc, group(100001))
	r.load(file)
	if _, err := r.credit(r.creditInput()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.management(tsm.ManagementInput{Register: 1, PAN: pan11, TI: 1, EA: 11, TCT: 2, SubClass: 1, TID: r.tid(2014)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.keyChange(tsm.KeyChangeInput{RegisterOld: 1, RegisterNew: 1, PAN: pan11, TIOld: 1, EA: 11, TCT: 2, TINew: 2, NumTokens: 4}); err != nil {
		t.Fatal(err)
	}
	must(t, second(r.m.DeleteKey(ctx, 1)))
	must(t, second(r.m.DeleteSlot(ctx, "TEST-KMC")))
	must(t, second(r.m.LoadLicence(ctx, r.licence(key, 5, start))))
	must(t, r.m.LoadSTATables(ctx, "other", []byte(otherTables)))
	root := newRoot(t)
	must(t, r.m.PinApprovalRoot(ctx, &root.PublicKey))
	must(t, second(r.m.LoadApprovals(ctx, listOf(t, root, start))))
	var got []string
	for _, e := range log {
		if !slices.Contains([]string{"module.create"}, e.Kind) {
			got = append(got, e.Kind)
		}
		if e.Time.IsZero() || e.Subject == "" {
			t.Errorf("entry %+v", e)
		}
		if slices.Contains([]string{"key.delete", "slot.delete", "licence.load", "sta.load", "approval.root", "approval.list"}, e.Kind) && e.Actor != "somebody" {
			t.Errorf("%s by %q", e.Kind, e.Actor)
		}
		for name, v := range detailOf(e) {
			if v == complianceKey || v == r.kmc.Groups()[0].Key {
				t.Errorf("%s: detail %s is the key itself", e.Kind, name)
			}
		}
	}
	want := []string{"kmc.request", "kmc.response", "key.load", "kmc.finish", "token.credit", "token.management", "token.keychange",
		"key.delete", "slot.delete", "licence.load", "sta.load", "approval.root", "approval.list"}
	if !slices.Equal(got, want) {
		t.Errorf("log %v\nwant %v", got, want)
	}
}

// Vending goes on, with right tokens, while other keys come and go and the
// cache of expanded keys is wiped.
func TestVendingWhileKeysChange(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(group(100001))
	other := newKMC(t, "OTHER")
	r.introduce(other)
	in := r.creditInput()
	stop := make(chan struct{})
	var vending sync.WaitGroup
	for range 4 {
		vending.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					if n == 0 {
						t.Error("nothing was vended meanwhile")
					}
					return
				default:
				}
				out, err := r.credit(in)
				if err != nil {
					t.Error(err)
					return
				}
				err = r.vault.View(context.Background(), func(tx tsm.Tx) error {
					v, err := r.m.Verify(tx, tsm.VerifyInput{Register: 1, PAN: pan11, TI: 1, EA: 11, Token: out.Dec})
					if err == nil && (v.Result != tsm.CodeOK || v.TID != in.TID) {
						t.Errorf("the token reads %+v", v)
					}
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 10 {
		r.load(r.klf(other, group(200000+i, func(g *kmc.Group) { g.ULM = 7 })))
		if _, err := r.m.DeleteSlot(context.Background(), "OTHER"); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	vending.Wait()
}
