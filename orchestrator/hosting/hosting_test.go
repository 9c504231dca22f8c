package hosting_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

const wait = 30 * time.Second

func TestNothingHappensWithoutTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(false)
	file := r.request(request.Request{Kind: request.Create})
	rec, err := h.Create(t.Context(), "by", file, admit.Choices{})
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.audit = errors.New("disk full")
	r.mu.Unlock()
	change := r.request(request.Request{Kind: request.SetProperties, VCM: rec.UUID, Properties: request.Properties{Name: new(string)}})
	for name, fn := range map[string]func() error{
		"create":   func() error { _, err := h.Create(t.Context(), "by", file, admit.Choices{}); return err },
		"start":    func() error { _, err := h.Start(t.Context(), "by", rec.UUID, nil, wait); return err },
		"property": func() error { _, err := h.SetProperty(t.Context(), "by", rec.UUID, change, "name", ""); return err },
		"delete":   func() error { return h.Delete(t.Context(), "by", rec.UUID, true) },
	} {
		if err := fn(); !errkind.Is(err, errkind.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := h.Show(rec.UUID); err != nil || got.State != lifecycle.Created || len(h.List(false)) != 1 {
		t.Errorf("%+v %v, %d VCMs", got, err, len(h.List(false)))
	}
	if n := r.device.Count(); n != 1 {
		t.Errorf("%d partitions", n)
	}
}

func TestRefusalsChangeNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(false)
	if _, err := h.Create(t.Context(), "by", []byte("no request"), admit.Choices{}); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("%v", err)
	}
	for name, fn := range map[string]func(string) error{
		"start":    func(id string) error { _, err := h.Start(t.Context(), "by", id, nil, wait); return err },
		"stop":     func(id string) error { _, err := h.Stop(t.Context(), "by", id, true, wait); return err },
		"show":     func(id string) error { _, err := h.Show(id); return err },
		"file":     func(id string) error { _, err := h.File(t.Context(), id); return err },
		"stats":    func(id string) error { _, err := h.Stats(t.Context(), id); return err },
		"delete":   func(id string) error { return h.Delete(t.Context(), "by", id, true) },
		"property": func(id string) error { _, err := h.SetProperty(t.Context(), "by", id, nil, "name", "x"); return err },
	} {
		if err := fn("4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"); !errkind.Is(err, errkind.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(r.kinds()) != 0 || len(h.List(false)) != 0 || r.device.Count() != 0 {
		t.Errorf("%v, %d VCMs, %d partitions", r.kinds(), len(h.List(false)), r.device.Count())
	}
}

// A crash at each place in a creation or deletion: the next run finishes or
// undoes it, and nothing is left.
func TestInterruptedCreationAndDeletion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(false)
	file := r.request(request.Request{Kind: request.Create})
	rec, err := h.Create(t.Context(), "by", file, admit.Choices{Name: "kept"})
	if err != nil {
		t.Fatal(err)
	}
	for _, alter := range []func(*lifecycle.Record){
		func(x *lifecycle.Record) { x.Pending = true },
		func(x *lifecycle.Record) { x.State = lifecycle.Deleting },
	} {
		victim, err := h.Create(t.Context(), "by", file, admit.Choices{Name: "victim"})
		if err != nil {
			t.Fatal(err)
		}
		hosting.Kill(h)
		cur, rev, err := r.cfg.VCMs.Get(t.Context(), victim.UUID)
		if err != nil {
			t.Fatal(err)
		}
		alter(&cur)
		if _, err := r.cfg.VCMs.Swap(t.Context(), victim.UUID, rev, cur); err != nil {
			t.Fatal(err)
		}
		h = r.open(false)
		if l := h.List(false); len(l) != 1 || l[0].UUID != rec.UUID || r.device.Count() != 1 {
			t.Errorf("%d VCMs, %d partitions", len(l), r.device.Count())
		}
	}
	if err := h.Delete(t.Context(), "by", rec.UUID, false); err != nil {
		t.Error(err)
	}
	r.nothing()
}

func TestRebootStartsAutostartInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.limit.MaxActive = 2
	h := r.open(false)
	yes := true
	auto := r.request(request.Request{Kind: request.Create, Properties: request.Properties{Autostart: &yes}})
	plain := r.request(request.Request{Kind: request.Create})
	var ids []string
	for _, f := range [][]byte{plain, auto, auto, auto} {
		rec, err := h.Create(t.Context(), "by", f, admit.Choices{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, rec.UUID)
	}
	if _, err := h.Start(t.Context(), "by", ids[0], nil, wait); err != nil {
		t.Fatal(err)
	}
	h.Close(t.Context())
	h = r.open(true)
	var got []bool
	for _, id := range ids {
		rec, err := h.Show(id)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rec.State.Active())
	}
	if want := []bool{false, true, true, false}; !slices.Equal(got, want) {
		t.Errorf("active %v, want %v", got, want)
	}
}

// Eight clients, a registry that loses requests and answers, and a host that
// dies now and then. Whatever happens, the limits hold, nothing is there twice,
// what was deleted stays away, and in the end everything can be deleted.
func TestClientsFaultsAndCrashes(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRig(t)
	f := &flaky{VCMs: r.cfg.VCMs, rand: rand.New(rand.NewPCG(seed, 0)), odds: 0.2}
	r.cfg.VCMs = f
	file := r.request(request.Request{Kind: request.Create})
	const rounds = 4
	var mu sync.Mutex
	deleted := map[string]bool{}
	done := map[string]int{}
	for round := range rounds {
		h := r.open(round%2 == 1)
		var clients sync.WaitGroup
		for c := range 8 {
			rnd := rand.New(rand.NewPCG(seed, uint64(round*8+c+1)))
			clients.Go(func() {
				for range 15 {
					what, id, err := operate(t, r, rnd, file)
					mu.Lock()
					outcome := "ok"
					if err != nil {
						outcome = errkind.Of(err).String()
					}
					done[what+" "+outcome]++
					if what == "delete" && err == nil {
						deleted[id] = true
					}
					mu.Unlock()
					if err != nil && errkind.Is(err, errkind.Internal) {
						t.Errorf("%s: %v", what, err)
					}
				}
			})
		}
		clients.Wait()
		invariants(t, r, deleted)
		if round < rounds-1 {
			hosting.Kill(h)
		}
	}
	f.calm()
	h := r.host
	settled(t, r)
	for _, rec := range h.List(false) {
		if rec.State.Active() {
			if _, err := h.Stop(t.Context(), "by", rec.UUID, true, wait); err != nil {
				t.Errorf("%s is stuck: %v", rec.State, err)
			}
		}
		if err := h.Delete(t.Context(), "by", rec.UUID, true); err != nil {
			t.Errorf("%s is stuck: %v", rec.State, err)
		}
	}
	r.nothing()
	t.Logf("%v", done)
	if len(deleted) == 0 {
		t.Error("nothing was ever deleted: the test proves nothing")
	}
}

// settled waits until memory and store agree and nothing is under way.
func settled(t *testing.T, r *rig) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		stored, err := r.cfg.VCMs.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]lifecycle.State{}
		rest := true
		for _, e := range stored {
			want[e.Record.UUID] = e.Record.State
			switch e.Record.State {
			case lifecycle.Created, lifecycle.Running, lifecycle.Stopped, lifecycle.Failed:
				rest = rest && !e.Record.Pending
			default:
				rest = false
			}
		}
		got := map[string]lifecycle.State{}
		for _, rec := range r.host.List(false) {
			got[rec.UUID] = rec.State
		}
		if rest && maps.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("stored %v, shown %v", want, got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// operate does one random thing to a random VCM.
func operate(t *testing.T, r *rig, rnd *rand.Rand, file []byte) (what, id string, err error) {
	h := r.host
	all := h.List(false)
	if len(all) == 0 || rnd.IntN(4) == 0 {
		_, err = h.Create(t.Context(), "by", file, admit.Choices{})
		return "create", "", err
	}
	v := all[rnd.IntN(len(all))]
	switch rnd.IntN(4) {
	case 0, 1:
		_, err = h.Start(t.Context(), "by", v.UUID, nil, wait)
		return "start", v.UUID, err
	case 2:
		_, err = h.Stop(t.Context(), "by", v.UUID, rnd.IntN(2) == 0, 3*time.Second)
		return "stop", v.UUID, err
	default:
		err = h.Delete(t.Context(), "by", v.UUID, rnd.IntN(2) == 0)
		return "delete", v.UUID, err
	}
}

func invariants(t *testing.T, r *rig, deleted map[string]bool) {
	t.Helper()
	list := r.host.List(false)
	active := 0
	var slots []int
	var addresses []string
	for _, rec := range list {
		if rec.State.Active() {
			active++
		}
		slots = append(slots, rec.Slot)
		addresses = append(addresses, rec.Properties.IPAddress)
		if deleted[rec.UUID] {
			t.Errorf("%s was deleted and is back", rec.UUID)
		}
	}
	if active > r.limit.MaxActive || len(list) > r.limit.MaxCreated {
		t.Errorf("%d active of %d, %d created of %d", active, r.limit.MaxActive, len(list), r.limit.MaxCreated)
	}
	distinct(t, "slot", slots)
	distinct(t, "address", addresses)
}
