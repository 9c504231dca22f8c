package crash_test

import (
	"cmp"
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

var (
	vcmKills = flag.Int("crash.vcm-kills", 8, "how often the VCM's process is killed under 64 clients")
	vcmTime  = flag.Duration("crash.vcm-time", 6*time.Second, "and within what time")
)

// TestVCMKilled lets 64 clients vend to 50 meters, five of them under a key that
// runs out, and kills the VCM's process again and again; the orchestrator starts
// it anew. The log is exported and expired meanwhile.
func TestVCMKilled(t *testing.T) {
	t.Parallel()
	rnd := random(t)
	limit := int64(8 * *vcmKills * portion)
	const whole = 100_000_000 // more than a minute can use
	r, v := binaries.Full(t, rig.Plan{
		Name: "killed", Request: []string{"--autostart"}, Orchestrator: []string{"--restart-pause", "100ms"},
		Groups: []rig.SupplyGroup{
			{SGC: openGroup, DKG: "04", Name: "Open", Flags: []string{"--ulm", strconv.Itoa(whole)}},
			{SGC: limitedGroup, DKG: "04", Name: "Limited", Flags: []string{"--ulm", strconv.FormatInt(limit+portion-1, 10)}},
		},
	})
	manyAnswers(t, r)
	open, err := r.Accounts(openGroup, 1, 45)
	if err != nil {
		t.Fatal(err)
	}
	limited, err := r.Accounts(limitedGroup, 5001, 5)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	books, clients := &ledger{}, &traffic{cancel: cancel}
	// A meter takes its identifiers from the minutes ahead, of which the module allows
	// seven days: not more than 10,080 tokens for each.
	const pace = 200 * time.Microsecond
	const atOnce = time.Millisecond // a process that was killed leaves no calls behind
	clients.vend(ctx, t, v, books, open, 58, 1, pace, atOnce)
	clients.vend(ctx, t, v, books, limited, 6, portion, 10*time.Millisecond, atOnce)
	log := &auditor{r: r, v: v}
	var pieces int
	var broken findings
	var follower sync.WaitGroup
	follower.Go(func() { pieces, broken = log.follow(t.Context(), ctx) })
	var files disk
	follower.Go(func() { files.watch(ctx, r, v) })

	k := &killer{t: t, r: r, rnd: rnd}
	began := time.Now()
	var back []time.Duration
	for i := range *vcmKills {
		killed := time.Now()
		k.killVCM()
		if rnd.IntN(4) != 0 { // else the next one comes before this one is overcome
			goesOn(t, books, vcmd)
			back = append(back, time.Since(killed))
		}
		left := time.Until(began.Add(*vcmTime)) / time.Duration(*vcmKills-i)
		k.pause(max(2*(left-time.Since(killed)), time.Millisecond))
	}
	killing := time.Since(began)
	if rest := *vcmTime - killing; rest > 0 {
		time.Sleep(rest)
	}
	goesOn(t, books, "the last one")
	if err := clients.end(); err != nil {
		t.Error(err)
	}
	follower.Wait()
	none(t, broken)
	books.settle(t, v)
	if err := log.export(t.Context(), false); err != nil {
		t.Fatal(err)
	}

	// The same by the tenant's command, without any service, and the proof of one token.
	offline := func(args ...string) {
		t.Helper()
		if _, err := r.Run(t.Context(), rig.Tenant, "hsmadmin", append([]string{"vcm", "logs"}, args...)...); err != nil {
			t.Error(err)
		}
	}
	offline(append([]string{"verify"}, log.files...)...)
	sold, proof := books.last(), r.Mail("sale.proof")
	offline(append([]string{"prove", "--token", sold.TokenDec, "--out", proof}, log.files...)...)
	offline("verify", proof)

	none(t, twins(books.calls))
	none(t, rejected(books.calls, slices.Concat(open, limited)))
	units, bad := unaudited(books.calls, log.records)
	none(t, bad)
	for sgc, granted := range map[string]int64{openGroup: whole, limitedGroup: limit + portion - 1} {
		if left := unitsLeft(t, r, sgc); units[sgc]+left != granted || left < 0 {
			t.Errorf("supply group %s: of a limit of %d units %d were issued and %d are left", sgc, granted, units[sgc], left)
		}
	}
	report(t, books, map[string]time.Duration{vcmd: slices.Max(append(back, 0))})
	slices.Sort(back)
	if len(back) > 0 {
		t.Logf("the process was killed %d times in %s; half of the time it vends again within %s", *vcmKills, killing.Round(time.Millisecond), back[len(back)/2].Round(time.Millisecond))
	}
	// Some 8,000 tokens make a file that is worth compacting.
	if files.compactions < books.tokens()/50_000 || files.largest > mostOnDisk {
		t.Errorf("with %d tokens the store was compacted %d times, its largest file had %d bytes", books.tokens(), files.compactions, files.largest)
	}
	t.Logf("the store was compacted %d times; its largest file had %d KiB", files.compactions, files.largest>>10)
	t.Logf("%d entries of the log in %d pieces, verified against the unit's key; issued units %v", len(log.records), pieces, units)
}

// manyAnswers lets a VCM remember more answers: everybody vends as one user, and each
// must find his answer among those of all, who go on while he was cut off.
func manyAnswers(t *testing.T, r *rig.Rig) {
	t.Helper()
	if _, err := r.Run(t.Context(), rig.Tenant, "ptokenadmin", "pref", "set", "ptoken.resultCacheEntries", "8000"); err != nil {
		t.Fatal(err)
	}
}

// follow exports the log piece by piece, and expires what it has, until vending
// ends. A command may fail, because the VCM is killed meanwhile; what it wrote has
// to be whole. It returns how many pieces came.
func (a *auditor) follow(ctx, vending context.Context) (pieces int, bad findings) {
	for expired := true; vending.Err() == nil || !expired; {
		if !expired {
			_, err := a.r.Run(ctx, rig.Tenant, "hsmadmin", "vcm", "logs", "expire", "--seq", strconv.FormatUint(a.last.Last, 10))
			expired = err == nil
			continue
		}
		dir, err := os.MkdirTemp(a.r.Mail(""), "log-")
		if err != nil {
			bad.add("%v", err)
			return pieces, bad
		}
		_, _ = a.r.Run(ctx, rig.Tenant, "hsmadmin", "vcm", "logs", "export", "--saved", "--outdir", dir)
		files, _ := filepath.Glob(filepath.Join(dir, "*.log")) // the pattern is a good one
		slices.SortFunc(files, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
		for _, f := range files {
			if err := a.take(f); err != nil {
				bad.add("%s: %v", f, err)
				return pieces, bad
			}
			pieces, expired = pieces+1, false
		}
		select {
		case <-vending.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return pieces, bad
}
