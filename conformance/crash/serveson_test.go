package crash_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
)

// TestServesOn kills the orchestrator again and again, also while it starts, stops,
// creates and deletes other VCMs, and their processes, and the unit, while clients
// vend to one VCM over connections that they opened before. That VCM is the same
// process to the end, and no call of its clients fails; the others end up as their
// provider was told.
func TestServesOn(t *testing.T) {
	t.Parallel()
	rnd := random(t)
	r, b := binaries.Full(t, rig.Plan{
		Name: "serves", Request: []string{"--autostart"}, Licences: []string{"max-active-vcms=4"},
		Orchestrator: []string{"--orphan-grace", "1m", "--restart-pause", "100ms"},
		Groups:       []rig.SupplyGroup{{SGC: openGroup, DKG: "04", Name: "Open"}},
	})
	const clients = 8
	accounts, err := r.Accounts(openGroup, 1, clients)
	if err != nil {
		t.Fatal(err)
	}
	books, patient := &ledger{}, &steady{books: &ledger{}}
	patient.books = books
	for _, a := range accounts {
		patient.vend(t, b, a)
	}
	request, err := r.Request(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Create(t.Context(), request, "other")
	if err != nil {
		t.Fatal(err)
	}
	was := only(t, r, b.UUID)
	watch := watchCopies(a.UUID, b.UUID)
	p := &provider{killer: killer{t: t, r: r, rnd: rnd}, a: a, b: b}
	var slowest time.Duration
	done := map[string]int{}
	for i := range 8 * *kills {
		what := p.disturb(i)
		done[what]++
		slowest = max(slowest, p.settles())
		if now := only(t, r, b.UUID); now != was {
			t.Fatalf("after %q the VCM's process is %d, was %d", what, now.PID, was.PID)
		}
		if n := patient.failed.Load(); n > 0 {
			t.Fatalf("after %q %d clients had an error", what, n)
		}
		p.groups(b)
	}
	patient.end()
	watch(t)
	t.Logf("%d tokens without an error on %d connections through %v; the orchestrator answers again within %s",
		books.tokens(), clients, done, slowest.Round(time.Millisecond))
	if books.tokens() < 100 {
		t.Errorf("only %d tokens were vended", books.tokens())
	}
	none(t, twins(books.calls))
	none(t, rejected(books.calls, accounts))
	log := &auditor{r: r, v: b}
	if err := log.export(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	_, bad := unaudited(books.calls, log.records)
	none(t, bad)
}

// steady are clients that do not connect twice and bear no error.
type steady struct {
	books  *ledger
	failed atomic.Int64
	over   atomic.Bool
	wg     sync.WaitGroup
}

func (s *steady) vend(t *testing.T, v *rig.VCM, a rig.Account) {
	t.Helper()
	c, err := v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	s.wg.Go(func() {
		defer func() { _ = c.Close() }()
		for !s.over.Load() {
			call := vending.Call{MessageID: vending.MessageID(), DRN: a.Config.Drn, Start: time.Now()}
			call.Tokens, err = c.API.IssueCreditToken(ctx, call.MessageID, c.Token, a.Config, 0, 1, 0, 0)
			if err != nil {
				t.Errorf("a call that began at %s: %v", call.Start.Format("15:04:05.000"), vending.Error("vend", err))
				s.failed.Add(1)
				return
			}
			s.books.add(call)
			time.Sleep(10 * time.Millisecond)
		}
	})
	t.Cleanup(s.end)
}

func (s *steady) end() {
	s.over.Store(true)
	s.wg.Wait()
}

// provider disturbs everything but the VCM that is watched.
type provider struct {
	killer
	a       *rig.VCM
	b       *rig.VCM // the one that is watched
	wanted  string   // the state of a, if its last command was answered
	command chan rig.Outcome
	made    string // the name of a VCM that is being created or deleted
}

// disturb does one thing and kills somebody in the middle of it.
func (p *provider) disturb(i int) (what string) {
	p.t.Helper()
	p.wanted, p.made, p.command = "", "", nil
	state, err := states(p.t.Context(), p.r)
	if err != nil {
		p.t.Fatal(err)
	}
	running := state["other"] == "running"
	name := fmt.Sprintf("made-%d", i)
	switch n := p.rnd.IntN(9); {
	case n == 0:
		what = "nothing"
	case n >= 7:
		before := p.killUnit()
		for p.rnd.IntN(3) == 0 { // again, while VCMs take it up
			p.pause(300 * time.Millisecond)
			before = p.killUnit()
		}
		// Until then the orchestrator has to be there for it.
		for end := time.Now().Add(recovery); p.r.Resumed(p.b.UUID) == before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				p.t.Fatal("the VCM does not go on with the unit")
			}
		}
		return "unit killed"
	case n == 1 && running:
		p.killOther()
		return "its neighbour's process killed"
	case n == 2 && !running:
		p.begin("vcmadmin", "start", p.a.UUID)
		p.pause(60 * time.Millisecond)
		for _, q := range p.r.VCMs() {
			if q.Of(p.a.UUID) {
				_ = q.Kill() // or it has just ended
			}
		}
		p.wanted = "running"
		return "its neighbour's process killed during its start"
	case n <= 4 && running:
		what, p.wanted = "stop", "stopped"
		p.begin("vcmadmin", "stop", "--yes", "--force", p.a.UUID)
	case n <= 4:
		what, p.wanted = "start", "running"
		p.begin("vcmadmin", "start", p.a.UUID)
	default:
		request, err := p.r.Request(p.t.Context(), name)
		if err != nil {
			p.t.Fatal(err)
		}
		args := []string{"create", "--request", request, "--outdir", p.r.Mail(""), name}
		if what, p.made = "create", name; n == 6 {
			out, err := p.r.Run(p.t.Context(), rig.Provider, "vcmadmin", append([]string{"create", "--json"}, args[1:]...)...)
			if err != nil {
				p.t.Fatal(err)
			}
			what, args = "delete", []string{"delete", "--yes", "--force", uuidIn(p.t, out)}
		}
		p.begin("vcmadmin", args...)
	}
	p.pause(150 * time.Millisecond)
	d := p.r.Daemon(orchestratord)
	p.r.Kill(d)
	p.pause(300 * time.Millisecond)
	if err := p.r.Restart(d); err != nil {
		p.t.Fatal(err)
	}
	for p.rnd.IntN(3) == 0 { // again, while it takes over
		p.pause(600 * time.Millisecond)
		p.r.Kill(d)
		if err := p.r.Restart(d); err != nil {
			p.t.Fatal(err)
		}
	}
	return "orchestrator killed during " + what
}

// killUnit kills the unit and starts it again. It returns how often the VCM that is
// watched had gone on with a unit until then.
func (p *provider) killUnit() (resumed int) {
	p.t.Helper()
	d := p.r.Daemon(hsmd)
	p.r.Kill(d)
	resumed = p.r.Resumed(p.b.UUID)
	p.pause(500 * time.Millisecond)
	if err := p.r.Restart(d); err != nil {
		p.t.Fatal(err)
	}
	return resumed
}

func (p *provider) killOther() {
	for _, q := range p.r.VCMs() {
		if q.Of(p.a.UUID) {
			_ = q.Kill() // or it has just ended
		}
	}
}

// begin runs a command that may fail.
func (p *provider) begin(tool string, args ...string) {
	answer := make(chan rig.Outcome, 1)
	p.command = answer
	go func() {
		out, err := p.r.Try(context.WithoutCancel(p.t.Context()), rig.Provider, tool, args...)
		if err != nil {
			out.Code = -1
		}
		answer <- out
	}()
}

// settles waits until the platform answers and no VCM is on its way to another
// state, and compares with what the provider was told. It returns how long the
// platform took to answer.
func (p *provider) settles() (answers time.Duration) {
	p.t.Helper()
	began := time.Now()
	answered := false
	if p.command != nil {
		answered = (<-p.command).Code == 0
	}
	var got map[string]string
	var err error
	for ; ; time.Sleep(20 * time.Millisecond) {
		if got, err = states(p.t.Context(), p.r); err == nil {
			if answers == 0 {
				answers = time.Since(began)
			}
			// That a process has ended is not known at once.
			if got["other"] == "running" && rig.Copies(p.a.UUID) == 1 || got["other"] == "stopped" {
				break
			}
		}
		if time.Since(began) > recovery {
			p.t.Fatalf("the VCMs are %v: %v", got, err)
		}
	}
	if got["serves"] != "running" {
		p.t.Fatalf("the VCM that serves is said to be %s", got["serves"])
	}
	if answered && p.wanted != "" && got["other"] != p.wanted {
		p.t.Errorf("the other VCM was answered to be %s and is %s", p.wanted, got["other"])
	}
	return answers
}

// groups checks that control groups are those of VCMs that run.
func (p *provider) groups(b *rig.VCM) {
	p.t.Helper()
	esn, err := p.r.ESN()
	if err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := slices.DeleteFunc(controlGroups(esn), func(dir string) bool {
			name := filepath.Base(dir)
			return name == b.UUID || slices.ContainsFunc(p.r.VCMs(), func(q rig.Process) bool { return q.Of(name) })
		})
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("control groups without a VCM: %v", left)
		}
	}
}

// controlGroups are the folders of a unit's VCMs, wherever control groups are.
func controlGroups(esn string) (dirs []string) {
	name := "tesserae-" + strings.ToLower(esn)
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && filepath.Base(filepath.Dir(path)) == name {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// only returns the one process of a VCM.
func only(t *testing.T, r *rig.Rig, uuid string) rig.Process {
	t.Helper()
	found := slices.DeleteFunc(r.VCMs(), func(p rig.Process) bool { return !p.Of(uuid) })
	if len(found) != 1 {
		t.Fatalf("VCM %s has %d processes", uuid, len(found))
	}
	return found[0]
}

// watchCopies looks for VCMs with two processes, until the result is asked for.
func watchCopies(uuids ...string) func(*testing.T) {
	stop, done := make(chan struct{}), make(chan string)
	go func() {
		worst := ""
		for {
			for _, u := range uuids {
				if n := rig.Copies(u); n > 1 {
					worst = fmt.Sprintf("VCM %s had %d processes at once", u, n)
				}
			}
			select {
			case <-stop:
				done <- worst
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func(t *testing.T) {
		t.Helper()
		close(stop)
		if worst := <-done; worst != "" {
			t.Error(worst)
		}
	}
}

// uuidIn is the VCM that an answer is about.
func uuidIn(t *testing.T, answer string) string {
	t.Helper()
	_, rest, found := strings.Cut(answer, `"uuid"`)
	parts := strings.SplitN(rest, `"`, 3)
	if !found || len(parts) < 3 {
		t.Fatalf("no VCM in %q", answer)
	}
	return parts[1]
}
