package crash_test

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// The supply groups of the vending test: one without limits, one that runs out.
const (
	openGroup    = "123456"
	limitedGroup = "123457"
	portion      = 7 // units of each token of the limited group
)

// TestVendingGoesOn kills the daemons while 16 clients vend to ten meters and two
// more use up a limited key.
func TestVendingGoesOn(t *testing.T) {
	t.Parallel()
	rnd := random(t)
	limit := int64(100 * *kills * portion)
	r, v := binaries.Full(t, rig.Plan{
		Name: "vending", Request: []string{"--autostart"}, Licences: []string{"max-active-vcms=3"},
		Groups: []rig.SupplyGroup{
			{SGC: openGroup, DKG: "04", Name: "Open"},
			// Not a multiple of the portion: something must be left.
			{SGC: limitedGroup, DKG: "04", Name: "Limited", Flags: []string{"--ulm", strconv.FormatInt(limit+portion-1, 10)}},
		},
	})
	manyAnswers(t, r)
	standstill(t, r)
	before, err := states(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	meters := max(10, 2**kills)
	open, err := r.Accounts(openGroup, 1, meters)
	if err != nil {
		t.Fatal(err)
	}
	limited, err := r.Accounts(limitedGroup, 5001, max(2, *kills/10))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	books, clients := &ledger{}, &traffic{cancel: cancel}
	clients.vend(ctx, t, v, books, open, 16, 1, 4*time.Millisecond, settled)
	clients.vend(ctx, t, v, books, limited, 2, portion, 20*time.Millisecond, settled)
	for range 3 {
		clients.hangUp(ctx, t, v, books, open)
	}
	log := &auditor{r: r, v: v}
	k := &killer{t: t, r: r, rnd: rnd}
	slowest := map[string]time.Duration{}
	for i, victim := range schedule(rnd, *kills, hsmd, orchestratord, vcmd) {
		k.pause(600 * time.Millisecond)
		clients.rush.Store(true) // so that the crash meets many calls in progress
		k.pause(200 * time.Millisecond)
		k.kill(victim)
		clients.rush.Store(false)
		if rnd.IntN(4) == 0 {
			continue // the next crash comes before this one is overcome
		}
		slowest[victim] = max(slowest[victim], goesOn(t, books, victim))
		if victim == orchestratord {
			awaitStates(t, r, before)
		}
		if i%25 == 24 {
			awaitStates(t, r, before)
			if err := log.export(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
	}
	goesOn(t, books, "the last one")
	awaitStates(t, r, before)
	runsOut(t, books, limit/portion)
	if err := clients.end(); err != nil {
		t.Error(err)
	}
	books.settle(t, v)
	if err := log.export(t.Context(), false); err != nil {
		t.Fatal(err)
	}

	none(t, twins(books.calls))
	none(t, rejected(books.calls, slices.Concat(open, limited)))
	units, bad := unaudited(books.calls, log.records)
	none(t, bad)
	left := unitsLeft(t, r, limitedGroup)
	if issued := units[limitedGroup]; issued+left != limit+portion-1 || left != portion-1 {
		t.Errorf("of a limit of %d units %d were issued and %d are left", limit+portion-1, issued, left)
	}
	report(t, books, slowest)
}

// standstill makes VCMs that do not run: one that never did, one that was stopped.
func standstill(t *testing.T, r *rig.Rig) {
	t.Helper()
	for _, name := range []string{"stopped", "created"} {
		request, err := r.Request(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		v, err := r.Create(t.Context(), request, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Run(t.Context(), rig.Provider, "vcmadmin", "stop", v.UUID); err != nil {
			t.Fatal(err)
		}
	}
}

// goesOn waits until a call that begins now is answered with a token.
func goesOn(t *testing.T, books *ledger, after string) time.Duration {
	t.Helper()
	began := time.Now()
	for !books.since(began) {
		if time.Since(began) > recovery {
			t.Fatalf("no token for %s after a crash of %s", recovery, after)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// runsOut waits until the limited key has issued all it can.
func runsOut(t *testing.T, books *ledger, tokens int64) {
	t.Helper()
	group, _ := strconv.Atoi(limitedGroup)
	count := func() (n int64, refused bool) {
		books.mu.Lock()
		defer books.mu.Unlock()
		for _, c := range books.calls {
			refused = refused || c.Code == "ESm"
			for _, token := range c.Tokens {
				if int(token.Sgc) == group {
					n++
				}
			}
		}
		return n, refused
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		n, refused := count()
		if n == tokens && refused {
			return
		}
		if n > tokens || time.Now().After(end) {
			t.Fatalf("the limited key issued %d tokens (refused: %t), not %d", n, refused, tokens)
		}
	}
}

// expected are the refusals of a module that ran out of units, whose unit went
// away during a call, or whose disk is full until its log is exported.
func expected() []string { return []string{"INSUFFICIENT_CREDIT_BALANCE", away, "VENDING_INHIBITED"} }

func report(t *testing.T, books *ledger, slowest map[string]time.Duration) {
	t.Helper()
	codes, fetched := map[string]int{}, 0
	for _, c := range books.calls {
		codes[c.Code]++
		if c.Fetched {
			fetched++
		}
		switch {
		case slices.Contains([]string{"", "ECacheMiss", "EAuthentication.Token"}, c.Code):
		case c.Code == "ESm" && slices.ContainsFunc(expected(), func(text string) bool { return strings.Contains(c.Error, text) }):
		case codes[c.Code] == 1:
			t.Errorf("a call failed with %s: %s", c.Code, c.Error)
		}
	}
	t.Logf("%d calls, %d tokens, %d of them fetched after a crash; by code %v", len(books.calls), books.tokens(), fetched, codes)
	for _, victim := range slices.Sorted(maps.Keys(slowest)) {
		t.Logf("after a crash of %-13s vending goes on within %s at most", victim, slowest[victim].Round(time.Millisecond))
	}
}
