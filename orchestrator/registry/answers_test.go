package registry_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/etcdtest"
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	os.Exit(m.Run())
}

// records is what the proxy knows requests about VCM records by.
const records = "/vcms/"

// behind returns the records of a unit of its own whose requests go through a proxy.
func behind(t *testing.T, member *etcdtest.Cluster) (*registry.Etcd, *etcdtest.Proxy) {
	t.Helper()
	o, p := claimBehind(t, member)
	return registry.NewEtcd(o), p
}

func claimBehind(t *testing.T, member *etcdtest.Cluster) (*registry.Ownership, *etcdtest.Proxy) {
	t.Helper()
	p := etcdtest.NewProxy(t, member.Endpoints())
	client, err := registry.Dial([]string{p.Endpoint()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return acquireUnit(t, client, uuid.NewString(), "first"), p
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func record(id string, state lifecycle.State) lifecycle.Record {
	return lifecycle.Record{UUID: id, State: state, Properties: lifecycle.Properties{ConductorPort: 5100}}
}

// Whatever gets lost, comes twice or late on the way: who writes learns that he
// did, each write is done once, and none is done after all.
func TestAnswersThatGetLost(t *testing.T) {
	t.Parallel()
	member := etcdtest.Start(t, 1)
	for name, way := range map[string][]etcdtest.Fate{
		"no request":              {etcdtest.LoseRequest},
		"no answer":               {etcdtest.LoseAnswer},
		"twice":                   {etcdtest.Twice},
		"silence":                 {etcdtest.Silence},
		"no answer, no request":   {etcdtest.LoseAnswer, etcdtest.LoseAnswer, etcdtest.LoseRequest},
		"no request and silence":  {etcdtest.LoseRequest, etcdtest.Silence, etcdtest.Twice},
		"late":                    {etcdtest.Late},
		"late after the next one": {etcdtest.Late, etcdtest.LoseAnswer},
		"an answer, and late":     {etcdtest.LoseAnswer, etcdtest.Late},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const id = "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
			e, p := behind(t, member)
			ctx := within(t, time.Minute)
			rev := registry.Rev(0)
			for _, state := range []lifecycle.State{lifecycle.Created, lifecycle.Starting, lifecycle.Created} {
				p.Next(records, way...)
				next, err := e.Swap(ctx, id, rev, record(id, state))
				if err != nil || next <= rev {
					t.Fatalf("%s at %d after %d: %v", state, next, rev, err)
				}
				rev = next
				p.Release()
				if got, at, err := e.Get(ctx, id); err != nil || at != rev || got.State != state {
					t.Fatalf("%s at %d, not %s at %d: %v", got.State, at, state, rev, err)
				}
			}
			p.Next(records, way...)
			if err := e.Remove(ctx, id, rev); err != nil {
				t.Fatalf("remove: %v", err)
			}
			p.Release()
			if _, _, err := e.Get(ctx, id); !errkind.Is(err, errkind.NotFound) {
				t.Fatalf("after its removal: %v", err)
			}
		})
	}
}

// The attempt to make a record that comes after the record was removed, late but
// under the same revision as at first: none.
func TestRemovedRecordStaysAway(t *testing.T) {
	t.Parallel()
	e, p := behind(t, etcdtest.Start(t, 1))
	const id = "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
	ctx := within(t, time.Minute)
	p.Next(records, etcdtest.Late)
	rev, err := e.Swap(ctx, id, 0, record(id, lifecycle.Created))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Remove(ctx, id, rev); err != nil {
		t.Fatal(err)
	}
	if p.Release() != 1 {
		t.Error("nothing was late")
	}
	if all, err := e.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
}

// A write by somebody else is told from a late one of our own.
func TestConflictAfterALostAnswer(t *testing.T) {
	t.Parallel()
	e, p := behind(t, etcdtest.Start(t, 1))
	const id = "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
	ctx := within(t, time.Minute)
	first, err := e.Swap(ctx, id, 0, record(id, lifecycle.Created))
	if err != nil {
		t.Fatal(err)
	}
	second, err := e.Swap(ctx, id, first, record(id, lifecycle.Starting))
	if err != nil {
		t.Fatal(err)
	}
	p.Next(records, etcdtest.LoseAnswer)
	if _, err := e.Swap(ctx, id, first, record(id, lifecycle.Deleting)); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("%v", err)
	}
	if got, at, err := e.Get(ctx, id); err != nil || at != second || got.State != lifecycle.Starting {
		t.Errorf("%+v at %d: %v", got, at, err)
	}
}

// A caller gives up, reads what there is, and acts on it. His write arrives after
// that: it must not happen any more.
func TestWriteThatArrivesAfterItsOutcomeWasRead(t *testing.T) {
	t.Parallel()
	member := etcdtest.Start(t, 1)
	for name, before := range map[string]bool{"the first write": false, "a later write": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, p := behind(t, member)
			const id = "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
			var rev registry.Rev
			want := errkind.NotFound
			if before {
				want = errkind.Internal
				var err error
				if rev, err = e.Swap(within(t, time.Minute), id, 0, record(id, lifecycle.Stopped)); err != nil {
					t.Fatal(err)
				}
			}
			p.Next(records, slices.Repeat([]etcdtest.Fate{etcdtest.Late}, 50)...)
			ctx := within(t, 1200*time.Millisecond)
			context.AfterFunc(ctx, func() { p.Next(records) }) // the network is well again
			if _, err := e.Swap(ctx, id, rev, record(id, lifecycle.Starting)); !errkind.Is(err, errkind.Unavailable) {
				t.Fatalf("without an answer: %v", err)
			}
			check := func(when string) {
				t.Helper()
				got, at, err := e.Get(within(t, time.Minute), id)
				if errkind.Of(err) != want || at != rev || before && got.State != lifecycle.Stopped {
					t.Errorf("%s: %q at %d, %v", when, got.State, at, err)
				}
			}
			check("given up")
			if p.Release() < 2 {
				t.Error("nothing was late")
			}
			check("after the late write")
			if all, err := e.List(within(t, time.Minute)); err != nil || len(all) != 0 && !before {
				t.Errorf("%d records, %v", len(all), err)
			}
		})
	}
}

// A renewal of the claim that was given up arrives in the middle of the next one:
// it is nobody else's.
func TestClaimThatArrivesLate(t *testing.T) {
	t.Parallel()
	o, p := claimBehind(t, etcdtest.Start(t, 1))
	registry.Doubt(o) // the next renewal writes the claim anew
	p.Next("/claim", slices.Repeat([]etcdtest.Fate{etcdtest.Late}, 50)...)
	if err := registry.Renew(o); !errkind.Is(err, errkind.Unavailable) {
		t.Fatalf("without an answer: %v", err)
	}
	p.Next("/claim", etcdtest.Overtaken)
	if err := registry.Renew(o); err != nil {
		t.Errorf("overtaken by a late renewal: %v", err)
	}
	select {
	case <-o.Lost(): // or it was the renewal that comes every few seconds
		t.Error("the unit is lost")
	case <-time.After(200 * time.Millisecond):
	}
	e := registry.NewEtcd(o)
	const id = "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
	if _, err := e.Swap(within(t, time.Minute), id, 0, record(id, lifecycle.Created)); err != nil {
		t.Error(err)
	}
}

// What no patience can help is said at once.
func TestRequestThatIsRefusedForGood(t *testing.T) {
	t.Parallel()
	e, _ := behind(t, etcdtest.Start(t, 1))
	r := record("4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209", lifecycle.Created)
	r.File = make([]byte, 4<<20)
	began := time.Now()
	if _, err := e.Swap(within(t, time.Minute), r.UUID, 0, r); err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// The leader dies, or falls silent, with writes under way. They succeed with the
// next one.
func TestLeaderIsLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*etcdtest.Cluster, int) (undo func()){
		"killed": func(c *etcdtest.Cluster, i int) func() { c.Kill(i); return func() { c.Restart(i) } },
		"silent": func(c *etcdtest.Cluster, i int) func() { c.Pause(i); return func() { c.Resume(i) } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t, 3)
			client, err := registry.Dial(strings.Split(cluster.Endpoints(), ","), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			e := registry.NewEtcd(acquire(t, client, "first"))
			leader := cluster.Leader()
			var longest time.Duration
			lost := time.After(100 * time.Millisecond)
			var undo func()
			const id = "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
			var rev registry.Rev
			for began := time.Now(); undo == nil || time.Since(began) < time.Second; {
				select {
				case <-lost:
					undo = lose(cluster, leader)
					began = time.Now()
				default:
				}
				at := time.Now()
				if rev, err = e.Swap(within(t, 25*time.Second), id, rev, record(id, lifecycle.Created)); err != nil {
					t.Fatalf("after %s: %v", time.Since(at), err)
				}
				longest = max(longest, time.Since(at))
			}
			undo()
			t.Logf("the longest write took %s", longest.Round(time.Millisecond))
			if _, at, err := e.Get(within(t, 25*time.Second), id); err != nil || at != rev {
				t.Errorf("at %d, not %d: %v", at, rev, err)
			}
		})
	}
}
