package tsm_test

import (
	"context"
	"crypto/rand"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// Power is cut at every write of every operation in turn. The reopened module
// is as it was before the operation, or as after it, and the operation can be
// done then.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := newRig(t).with(
		group(100001, func(g *kmc.Group) { g.ULM = 1000 }),
		group(100002), group(100003))
	file := base.klf(base.kmc)
	licence, key := licenceFor(t, base, 5)

	type step struct {
		name  string
		setup func(*rig) // before power becomes unreliable
		do    func(*rig) error
	}
	respond := func(r *rig) error { return second2(r.m.ProcessResponse(ctx, file.Response)) }
	load := func(i int) func(*rig) error {
		return func(r *rig) error { return second(r.m.LoadKey(ctx, "TEST-KMC", file.Keys[i].String(), 0)) }
	}
	steps := []step{
		{"request", nil, func(r *rig) error { return second(r.m.KeyAgreement(ctx, r.publicKey(base.kmc))) }},
		{"response", nil, respond},
		{"load", func(r *rig) { must(r.t, respond(r)) }, load(0)},
		{"load again", func(r *rig) { must(r.t, respond(r)); must(r.t, load(1)(r)) }, load(1)},
		{"finish", func(r *rig) { must(r.t, respond(r)); must(r.t, load(0)(r)) }, func(r *rig) error { return second(r.m.Finish(ctx, "TEST-KMC")) }},
		{"delete key", nil, func(r *rig) error { return second(r.m.DeleteKey(ctx, 2)) }},
		{"delete slot", nil, func(r *rig) error { return second(r.m.DeleteSlot(ctx, "TEST-KMC")) }},
		{"credit", nil, func(r *rig) error { return second(r.credit(r.creditInput())) }},
		{"licence", nil, func(r *rig) error { return second(r.m.LoadLicence(ctx, licence)) }},
		{"tables", nil, func(r *rig) error { return r.m.LoadSTATables(ctx, "other", []byte(otherTables)) }},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for cut := 1; ; cut++ {
				r := &rig{t: t, clock: base.clock, kmc: base.kmc, vault: base.vault.reopen()}
				r.vault.once = true
				withKey := func(c *tsm.Config) { c.InstructionKey = &key.PublicKey }
				r.m = r.open(r.vault, withKey)
				if s.setup != nil {
					s.setup(r)
				}
				before := maps.Clone(r.vault.data)
				r.vault.cutAt, r.vault.writes = cut, 0
				err := s.do(r)
				if err == nil {
					if cut < 2 {
						t.Fatal("the operation wrote nothing")
					}
					return // power lasted for all of its writes
				}
				r.vault = r.vault.reopen()
				r.vault.once = true
				if !reflect.DeepEqual(before, r.vault.data) {
					t.Errorf("cut at write %d: the module changed by halves", cut)
				}
				r.m = r.open(r.vault, withKey)
				if err := s.do(r); err != nil {
					t.Errorf("cut at write %d: after power came back: %v", cut, err)
				}
			}
		})
	}
}

func second2[T, U any](_ T, _ U, err error) error { return err }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// model is what a module with one counted key may be expected to hold.
type model struct {
	ulm, clm   uint32
	left       uint32
	issued     uint64
	issuedCash uint64
}

// Whatever is asked, with power cuts in between: no limit is exceeded, no
// counter goes back, and what is left plus what was issued is what there was.
func TestLimitsAreNeverExceeded(t *testing.T) {
	t.Parallel()
	base := newRig(t).with(group(100001, func(g *kmc.Group) { g.ULM, g.CLM = 20000, 300000 }))
	licence, key := licenceFor(t, base, 30)
	withKey := func(c *tsm.Config) { c.InstructionKey = &key.PublicKey }
	rapid.Check(t, func(rt *rapid.T) {
		r := &rig{t: t, clock: base.clock, kmc: base.kmc, vault: base.vault.reopen()}
		r.m = r.open(r.vault, withKey)
		if _, err := r.m.LoadLicence(context.Background(), licence); err != nil {
			rt.Fatal(err)
		}
		want := model{ulm: 20000, clm: 300000, left: 30}
		rt.Repeat(map[string]func(*rapid.T){
			"credit": func(rt *rapid.T) {
				in := r.creditInput()
				in.SubClass = rapid.IntRange(0, 7).Draw(rt, "subclass")
				in.Amount = rapid.Uint32Range(0, 0x4100).Draw(rt, "amount")
				if in.SubClass >= 4 {
					in.Amount |= rapid.Uint32Range(0, 1).Draw(rt, "negative") << 19
				}
				if rapid.IntRange(0, 14).Draw(rt, "power") == 0 {
					r.vault.cutAt, r.vault.writes = rapid.IntRange(1, 2).Draw(rt, "cut"), 0
				}
				out, err := r.credit(in)
				r.vault.cutAt = 0
				switch {
				case err != nil && r.vault.torn:
					r.vault = r.vault.reopen()
					r.m = r.open(r.vault, withKey)
				case err == nil && in.SubClass < 4:
					want.issued += uint64(out.Units)
					want.left--
				case err == nil:
					want.issuedCash += uint64(max(out.Units, 0))
					want.left--
				}
			},
			"restart": func(rt *rapid.T) {
				if rapid.IntRange(0, 9).Draw(rt, "sure") == 0 { // rare, or little happens between two
					r.vault = r.vault.reopen()
					r.m = r.open(r.vault, withKey)
				}
			},
			"": func(rt *rapid.T) {
				a, err := r.attributes(1)
				if err != nil {
					rt.Fatal(err)
				}
				l, err := r.m.Counter(context.Background())
				if err != nil {
					rt.Fatal(err)
				}
				if want.issued > uint64(want.ulm) || want.issuedCash > uint64(want.clm) {
					rt.Fatalf("issued %d of %d units, %d of %d currency", want.issued, want.ulm, want.issuedCash, want.clm)
				}
				if uint64(a.ULM)+want.issued != uint64(want.ulm) || uint64(a.CLM)+want.issuedCash != uint64(want.clm) || l.Left != want.left {
					rt.Fatalf("ULM %d after %d units, CLM %d after %d, %d transactions left and %d expected",
						a.ULM, want.issued, a.CLM, want.issuedCash, l.Left, want.left)
				}
			},
		})
	})
}

// A KMC with 1000 keys: 999 load, the last finds no register, and loads after
// another was deleted.
func TestThousandSupplyGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.vault.once = true
	r.kmc = bulkKMC(t, r, 1000)
	file := r.klf(r.kmc)
	ctx := context.Background()
	if _, n, err := r.m.ProcessResponse(ctx, file.Response); n != 1000 || err != nil {
		t.Fatal(n, err)
	}
	v := newBulkVault(r.vault)
	r.m = r.open(v)
	for i, rec := range file.Keys[:999] {
		a, err := r.m.LoadKey(ctx, file.KMC, rec.String(), 0)
		if err != nil || a.Register != i+1 {
			t.Fatalf("key %d: register %d, %v", i, a.Register, err)
		}
	}
	last := file.Keys[999].String()
	_, err := r.m.LoadKey(ctx, file.KMC, last, 0)
	want(t, err, tsm.CodeNoRegister)
	if err != nil && tsm.CodeOf(err).Identifier() != "VK_REG_NOT_FOUND_ERROR" {
		t.Errorf("identifier %s", tsm.CodeOf(err).Identifier())
	}
	if _, err := r.m.DeleteKey(ctx, 500); err != nil {
		t.Fatal(err)
	}
	if a, err := r.m.LoadKey(ctx, file.KMC, last, 0); err != nil || a.Register != 500 {
		t.Errorf("register %d, %v", a.Register, err)
	}
	if n, err := r.m.Finish(ctx, file.KMC); n != 999 || err != nil {
		t.Errorf("finish: %d, %v", n, err)
	}
}

// bulkKMC makes a KMC with n groups that knows the rig's module.
func bulkKMC(t *testing.T, r *rig, n int) *kmc.KMC {
	t.Helper()
	k, err := kmc.Init(t.TempDir(), "BULK-KMC", start.AddDate(-1, 0, 0), start.AddDate(5, 0, 0), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.introduce(k)
	groups := make([]kmc.Group, n)
	for i := range groups {
		groups[i] = group(100000 + i)
	}
	if err := k.AddGroups(groups); err != nil {
		t.Fatal(err)
	}
	return k
}

// bulkVault is the same memory without copying all of it in each transaction:
// the thousand keys' test has no failing transaction that writes.
type bulkVault struct {
	data map[string][]byte
	keys []string // sorted
}

func newBulkVault(v *memVault) *bulkVault {
	b := &bulkVault{data: v.data}
	b.keys = slices.Sorted(maps.Keys(b.data))
	return b
}

func (b *bulkVault) View(_ context.Context, fn func(tsm.Tx) error) error   { return fn(b) }
func (b *bulkVault) Update(_ context.Context, fn func(tsm.Tx) error) error { return fn(b) }
func (b *bulkVault) Get(key []byte) ([]byte, error)                        { return slices.Clone(b.data[string(key)]), nil }

func (b *bulkVault) Put(key, value []byte) error {
	if i, found := slices.BinarySearch(b.keys, string(key)); !found {
		b.keys = slices.Insert(b.keys, i, string(key))
	}
	b.data[string(key)] = slices.Clone(value)
	return nil
}

func (b *bulkVault) Delete(key []byte) error {
	if i, found := slices.BinarySearch(b.keys, string(key)); found {
		b.keys = slices.Delete(b.keys, i, i+1)
	}
	delete(b.data, string(key))
	return nil
}

func (b *bulkVault) Range(prefix []byte, fn func(key, value []byte) error) error {
	i, _ := slices.BinarySearch(b.keys, string(prefix))
	for ; i < len(b.keys) && len(b.keys[i]) >= len(prefix) && b.keys[i][:len(prefix)] == string(prefix); i++ {
		if err := fn([]byte(b.keys[i]), b.data[b.keys[i]]); err != nil {
			return err
		}
	}
	return nil
}
