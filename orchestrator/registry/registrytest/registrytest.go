// Package registrytest is the suite that every backend of registry.VCMs passes.
package registrytest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
)

// Backend is a registry under test and what can be done to it from below.
type Backend struct {
	registry.VCMs
	// Compact makes the store forget all past revisions.
	Compact func(t *testing.T)
	// Usurp makes another orchestrator take the unit over.
	Usurp func(t *testing.T)
	// Crash ends the backend without any farewell and opens it again on the
	// same data.
	Crash func(t *testing.T) registry.VCMs
}

// Run runs the suite. open returns an empty registry of its own each time.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	for name, test := range map[string]func(*testing.T, Backend){
		"a record is what was stored":           stored,
		"swap needs the current revision":       compareAndSwap,
		"remove needs the current revision":     remove,
		"list is in the order of creation":      order,
		"concurrent swaps lose nothing":         concurrent,
		"snapshot and watch leave no gap":       noGap,
		"watch after compaction says so":        compacted,
		"watch ends with its context":           watchEnds,
		"who lost the unit can change nothing":  fenced,
		"a crash loses nothing acknowledged":    crash,
		"a thousand records":                    thousand,
		"a record under another's key":          foreign,
		"a cancelled call is unavailable":       cancelled,
		"removing and creating again is seen":   recreate,
		"an unknown record cannot be told from": unknown,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func record(i int) lifecycle.Record {
	return lifecycle.Record{
		UUID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)).String(), State: lifecycle.Created,
		Created: epoch.Add(time.Duration(i) * time.Second), Changed: epoch,
		Properties: lifecycle.Properties{Name: fmt.Sprintf("vcm %d", i), ConductorPort: 5200},
	}
}

func put(t *testing.T, v registry.VCMs, r lifecycle.Record, rev registry.Rev) registry.Rev {
	t.Helper()
	next, err := v.Swap(t.Context(), r.UUID, rev, r)
	if err != nil {
		t.Fatal(err)
	}
	if next <= rev {
		t.Fatalf("revision %d after %d", next, rev)
	}
	return next
}

func same(a, b lifecycle.Record) bool {
	p, _ := a.Marshal()
	q, _ := b.Marshal()
	return string(p) == string(q)
}

func stored(t *testing.T, b Backend) {
	r := record(1)
	rev := put(t, b, r, 0)
	got, at, err := b.Get(t.Context(), r.UUID)
	if err != nil || at != rev || !same(got, r) {
		t.Errorf("%+v at %d, %v; want %+v at %d", got, at, err, r, rev)
	}
}

func unknown(t *testing.T, b Backend) {
	put(t, b, record(1), 0)
	if _, _, err := b.Get(t.Context(), record(2).UUID); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("%v", err)
	}
}

func compareAndSwap(t *testing.T, b Backend) {
	r := record(1)
	first := put(t, b, r, 0)
	r.State = lifecycle.Starting
	second := put(t, b, r, first)
	for _, stale := range []registry.Rev{0, first, second + 1} {
		bad := r
		bad.Reason = "stale"
		if _, err := b.Swap(t.Context(), r.UUID, stale, bad); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("swap at %d: %v", stale, err)
		}
	}
	got, _, err := b.Get(t.Context(), r.UUID)
	if err != nil || !same(got, r) {
		t.Errorf("a failed swap changed the record: %+v %v", got, err)
	}
	if _, err := b.Swap(t.Context(), record(2).UUID, second, record(2)); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("swap of what does not exist: %v", err)
	}
}

func remove(t *testing.T, b Backend) {
	r := record(1)
	first := put(t, b, r, 0)
	second := put(t, b, r, first)
	if err := b.Remove(t.Context(), r.UUID, first); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("remove at a stale revision: %v", err)
	}
	if err := b.Remove(t.Context(), r.UUID, second); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(t.Context(), r.UUID); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("after removal: %v", err)
	}
	if err := b.Remove(t.Context(), r.UUID, second); err != nil {
		t.Errorf("remove twice: %v", err)
	}
}

func recreate(t *testing.T, b Backend) {
	r := record(1)
	first := put(t, b, r, 0)
	if err := b.Remove(t.Context(), r.UUID, first); err != nil {
		t.Fatal(err)
	}
	put(t, b, r, 0)
	if _, err := b.Swap(t.Context(), r.UUID, first, r); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("the former record's revision still works: %v", err)
	}
}

func order(t *testing.T, b Backend) {
	for _, i := range []int{5, 1, 9, 3} {
		put(t, b, record(i), 0)
	}
	entries, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names string
	for _, e := range entries {
		names += e.Record.Properties.Name + ";"
	}
	if names != "vcm 1;vcm 3;vcm 5;vcm 9;" {
		t.Errorf("%s", names)
	}
}

func concurrent(t *testing.T, b Backend) {
	const writers, each = 8, 10
	r := record(1)
	put(t, b, r, 0)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				cur, rev, err := b.Get(t.Context(), r.UUID)
				if err != nil {
					t.Error(err)
					return
				}
				cur.Restarts++
				switch _, err := b.Swap(t.Context(), r.UUID, rev, cur); {
				case err == nil:
					done++
				case !errors.Is(err, registry.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, _, err := b.Get(t.Context(), r.UUID); err != nil || got.Restarts != writers*each {
		t.Errorf("%d of %d increments are left (%v)", got.Restarts, writers*each, err)
	}
}

func noGap(t *testing.T, b Backend) {
	a, z := record(1), record(2)
	revA := put(t, b, a, 0)
	_, from, err := b.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.State = lifecycle.Starting
	want := []registry.Change{{UUID: a.UUID, Rev: put(t, b, a, revA), Record: a}}
	revZ := put(t, b, z, 0)
	want = append(want, registry.Change{UUID: z.UUID, Rev: revZ, Record: z})
	if err := b.Remove(t.Context(), z.UUID, revZ); err != nil {
		t.Fatal(err)
	}
	want = append(want, registry.Change{UUID: z.UUID, Removed: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	i := 0
	for c, err := range b.Watch(ctx, from) {
		if err != nil {
			t.Fatal(err)
		}
		w := want[i]
		if c.UUID != w.UUID || c.Removed != w.Removed || (!w.Removed && (c.Rev != w.Rev || !same(c.Record, w.Record))) {
			t.Errorf("change %d is %+v, want %+v", i, c, w)
		}
		if i++; i == len(want) {
			break
		}
	}
	if i != len(want) {
		t.Errorf("%d changes of %d", i, len(want))
	}
}

func compacted(t *testing.T, b Backend) {
	r := record(1)
	rev := put(t, b, r, 0)
	from := rev
	for range 3 {
		rev = put(t, b, r, rev)
	}
	b.Compact(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, err := range b.Watch(ctx, from) {
		if !errors.Is(err, registry.ErrCompacted) {
			t.Errorf("%v", err)
		}
		return
	}
	t.Error("the watch ended without a word")
}

func watchEnds(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c, err := range b.Watch(ctx, 0) {
			t.Errorf("%+v %v", c, err)
		}
	}()
	time.Sleep(20 * time.Millisecond)
	cancel()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}

func fenced(t *testing.T, b Backend) {
	r := record(1)
	rev := put(t, b, r, 0)
	b.Usurp(t)
	if _, err := b.Swap(t.Context(), r.UUID, rev, r); !errors.Is(err, registry.ErrNotOwner) {
		t.Errorf("swap: %v", err)
	}
	if err := b.Remove(t.Context(), r.UUID, rev); !errors.Is(err, registry.ErrNotOwner) {
		t.Errorf("remove: %v", err)
	}
	if _, _, err := b.Get(t.Context(), r.UUID); err != nil {
		t.Errorf("get: %v", err)
	}
}

func crash(t *testing.T, b Backend) {
	revs := map[string]registry.Rev{}
	for i := range 10 {
		r := record(i)
		revs[r.UUID] = put(t, b, r, 0)
	}
	again := b.Crash(t)
	entries, err := again.List(t.Context())
	if err != nil || len(entries) != len(revs) {
		t.Fatalf("%d records of %d (%v)", len(entries), len(revs), err)
	}
	for _, e := range entries {
		if e.Rev != revs[e.Record.UUID] {
			t.Errorf("%s at %d, was %d", e.Record.UUID, e.Rev, revs[e.Record.UUID])
		}
		put(t, again, e.Record, e.Rev)
	}
}

func thousand(t *testing.T, b Backend) {
	const n = 1000
	for i := range n {
		r := record(i)
		r.File = make([]byte, 2000)
		put(t, b, r, 0)
	}
	began := time.Now()
	entries, _, err := b.Snapshot(t.Context())
	if err != nil || len(entries) != n {
		t.Fatalf("%d records of %d (%v)", len(entries), n, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the snapshot took %s", took)
	}
	for i, e := range entries {
		if want := fmt.Sprintf("vcm %d", i); e.Record.Properties.Name != want {
			t.Fatalf("record %d is %q", i, e.Record.Properties.Name)
		}
	}
}

func foreign(t *testing.T, b Backend) {
	if _, err := b.Swap(t.Context(), record(1).UUID, 0, record(2)); err == nil {
		t.Error("stored")
	}
}

func cancelled(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Swap(ctx, record(1).UUID, 0, record(1)); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("%v", err)
	}
}
