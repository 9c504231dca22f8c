package isolation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// killRounds is how often A's process is killed.
const killRounds = 10

// kills ends the process of A's VCM again and again in the middle of vending, as
// the kernel would, while B vends: B notices nothing, and A is back each time
// with everything that it had acknowledged.
func (s *Suite) kills(ctx context.Context) (err error) {
	bin := s.programs
	if s.OwnGroup {
		// What it has divided it cannot be started in again while VCMs are there.
		if bin, err = s.wrapped(s.Bin, "below", "enter-below", ownGroup()+"-below"); err != nil {
			return err
		}
	}
	p, err := open(ctx, bin, s.dir("kills"), s.log)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, p.Stop()); err == nil && s.OwnGroup {
			err = s.leave(ownGroup()+"-below", "")
		}
	}()
	va, a, err := p.equip(ctx, "a")
	if err != nil {
		return err
	}
	vb, b, err := p.equip(ctx, "b")
	if err != nil {
		return err
	}
	accounts, err := p.Accounts(supplyGroup.SGC, 1, 16)
	if err != nil {
		return err
	}
	ofA, ofB := accounts[:8], accounts[8:]
	rounds := killRounds
	if s.Short {
		rounds = 3
	}
	var booksA, booksB book
	load, stop := context.WithCancel(ctx)
	defer stop()
	var loads sync.WaitGroup
	var errA, errB error
	// Whoever has lost A asks for what became of his call; B's till does not get a
	// second try.
	loads.Go(func() { errA = booksA.vend(load, a, ofA, 20*time.Second) })
	loads.Go(func() { errB = booksB.till(load, b, ofB) })
	slowest, err := p.killAgain(ctx, va.process, vb.process, rounds, &booksA)
	var back, unitBack time.Duration
	if err == nil {
		unitBack, err = s.unitKilled(ctx, p, va.uuid, vb.uuid)
	}
	if err == nil {
		back, err = s.orchestratorKilled(ctx, p, va.report.IsolationLevel, &booksA, &booksB)
	}
	stop()
	loads.Wait()
	if err = errors.Join(err, errA, errB); err != nil {
		return err
	}
	if !vb.process.Alive() {
		s.hole("kills: B's process did not outlive those of A")
	}
	s.kept(ctx, &booksA, a, ofA)
	s.kept(ctx, &booksB, b, ofB)
	s.print("isolation: %d × kill -9 of A: back within %s; A issued %d tokens, %d of them fetched after a kill, each is kept, unique and accepted by its meter; B issued %d without an error, the slowest call %s\n",
		rounds, slowest.Round(time.Millisecond), booksA.tokens(), booksA.fetched(), booksB.tokens(), booksB.slowest().Round(time.Millisecond))
	s.print("isolation: kill -9 of orchestratord: both serve on in the same processes; %s later the next one has taken them over; of hsmd: the same, %s after it was killed they go on with the next one (at length: conformance/crash)\n",
		back.Round(time.Millisecond), unitBack.Round(time.Millisecond))
	return nil
}

// unitKilled kills the unit while both vend, and starts it again as a host does: their
// processes stay and go on with it, and no call of B fails.
func (s *Suite) unitKilled(ctx context.Context, p *platform, vcms ...string) (back time.Duration, err error) {
	before := p.VCMs()
	p.Kill(p.hsmd)
	killed := time.Now()
	if err := p.Restart(p.hsmd); err != nil {
		return 0, err
	}
	for _, uuid := range vcms {
		if err := p.await(ctx, func() bool { return p.Resumed(uuid) > 0 }); err != nil {
			s.hole("kills: a VCM does not go on with a unit that was killed: %v", err)
		}
	}
	back = time.Since(killed)
	for _, v := range before {
		if !v.Alive() {
			s.hole("kills: process %d of a VCM has ended with the unit or by the next one", v.PID)
		}
	}
	return back, nil
}

// orchestratorKilled kills the orchestrator while both vend: their processes stay,
// and the next orchestrator knows them.
func (s *Suite) orchestratorKilled(ctx context.Context, p *platform, level string, a, b *book) (back time.Duration, err error) {
	before := p.VCMs()
	p.Kill(p.orchestrator)
	killed := time.Now()
	for _, v := range []*book{a, b} {
		if err := p.await(ctx, func() bool { return v.since(killed) }); err != nil {
			s.hole("kills: without an orchestrator a VCM does not serve on: %v", err)
		}
	}
	if err := p.Restart(p.orchestrator); err != nil {
		return 0, err
	}
	began := time.Now()
	err = errors.New("not asked")
	for end := began.Add(30 * time.Second); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		err = p.provider(ctx, func(h *rig.Hosting) error {
			all, err := h.ListVcms(ctx, true)
			if err == nil && len(all) != len(before) {
				err = fmt.Errorf("%d VCMs are active instead of %d", len(all), len(before))
			}
			return err
		})
	}
	if err != nil {
		return 0, fmt.Errorf("the next orchestrator: %w", err)
	}
	back = time.Since(began)
	// What the first one could give, the next one can.
	later, err := p.create(ctx, "later", "")
	if err != nil {
		return 0, err
	}
	if err := later.start(ctx); err != nil {
		return 0, err
	}
	if later.report.IsolationLevel != level {
		s.hole("kills: the next orchestrator isolates VCMs at level %s, not %s: %s", later.report.IsolationLevel, level, later.line(cgroup))
	}
	if err := later.drop(ctx); err != nil {
		return 0, err
	}
	for _, v := range before {
		if !v.Alive() {
			s.hole("kills: process %d of a VCM has ended with the orchestrator or by the next one", v.PID)
		}
	}
	return back, nil
}

// await waits for what takes no longer than a moment, also while there is no orchestrator.
func (p *platform) await(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for !ready() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// killAgain kills A's process, whichever it is by now, and waits each time until
// A issues again.
func (p *platform) killAgain(ctx context.Context, a, b rig.Process, rounds int, books *book) (slowest time.Duration, err error) {
	for range rounds {
		if err := p.Await(ctx, "tokens of A", func() bool { return books.since(time.Now().Add(-50 * time.Millisecond)) }); err != nil {
			return 0, err
		}
		if err := a.Kill(); err != nil {
			return 0, err
		}
		killed := time.Now()
		if err := p.Await(ctx, "a token of A after it was killed", func() bool { return books.since(killed) }); err != nil {
			return 0, err
		}
		slowest = max(slowest, time.Since(killed))
		found := false
		for _, now := range p.VCMs() {
			if now != b {
				a, found = now, true
			}
		}
		if !found {
			return 0, errors.New("there are tokens of A, but no process")
		}
	}
	return slowest, nil
}

// book is what a vending system knows of its calls.
type book struct {
	mu    sync.Mutex
	calls []vending.Call
}

// vend issues to the accounts in turn from four clients until ctx ends.
func (b *book) vend(ctx context.Context, v *rig.VCM, accounts []rig.Account, recover time.Duration) error {
	server, err := v.Server()
	if err != nil {
		return err
	}
	password, err := v.Password()
	if err != nil {
		return err
	}
	var meters []*prismtoken1.MeterConfigIn
	for _, a := range accounts {
		meters = append(meters, a.Config)
	}
	_, err = vending.Load{
		Server: server, User: v.User, Password: password, Meters: meters, Amount: 10, Clients: 4, Duration: 5 * time.Minute, Recover: recover, Settle: 2 * time.Second,
		Record: func(c vending.Call) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.calls = append(b.calls, c)
			return nil
		},
	}.Run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// till issues one token after the other on one connection until ctx ends: a till
// at work, not a load. The first call that fails is its last.
func (b *book) till(ctx context.Context, v *rig.VCM, accounts []rig.Account) error {
	c, err := v.Client(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := 0; ctx.Err() == nil; i++ {
		call := vending.Call{MessageID: vending.MessageID(), Start: time.Now()}
		call.Tokens, err = c.API.IssueCreditToken(ctx, call.MessageID, c.Token, accounts[i%len(accounts)].Config, 0, 10, 0, 0)
		if ctx.Err() != nil {
			return nil
		}
		call.Micros = time.Since(call.Start).Microseconds()
		if err != nil {
			call.Code, call.Error = vending.ErrorCode(err), err.Error()
		}
		b.mu.Lock()
		b.calls = append(b.calls, call)
		b.mu.Unlock()
		if err != nil {
			return fmt.Errorf("the till of B: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// since reports whether a call that began after that time was answered with tokens.
func (b *book) since(at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range slices.Backward(b.calls) {
		if c.Start.After(at) && !c.Fetched && len(c.Tokens) > 0 {
			return true
		}
		if c.Start.Before(at.Add(-time.Minute)) {
			break
		}
	}
	return false
}

func (b *book) tokens() (n int) {
	for _, c := range b.calls {
		n += len(c.Tokens)
	}
	return n
}

func (b *book) fetched() (n int) {
	for _, c := range b.calls {
		if c.Fetched {
			n++
		}
	}
	return n
}

func (b *book) slowest() (d time.Duration) {
	for _, c := range b.calls {
		d = max(d, time.Duration(c.Micros)*time.Microsecond)
	}
	return d
}

// kept checks what a VCM must keep through a crash: a result that was acknowledged
// is still there, no meter has two tokens with one identifier, each accepts its
// tokens in the order of their identifiers.
func (s *Suite) kept(ctx context.Context, b *book, v *rig.VCM, accounts []rig.Account) {
	c, err := v.Client(ctx)
	if err != nil {
		s.hole("kills: %v", err)
		return
	}
	defer c.Close()
	ofMeter := map[string][]*prismtoken1.Token{}
	const remembered = 200 // results, the newest: older ones may have made room
	for i, call := range b.calls {
		for _, t := range call.Tokens {
			ofMeter[t.Drn] = append(ofMeter[t.Drn], t)
		}
		if len(call.Tokens) == 0 || i < len(b.calls)-remembered {
			continue
		}
		again, err := c.API.FetchTokenResult_(ctx, vending.MessageID(), c.Token, call.MessageID)
		if err != nil || len(again) != len(call.Tokens) || again[0].TokenDec != call.Tokens[0].TokenDec {
			s.hole("kills: a result that was acknowledged is another afterwards: %v, %v", again, err)
		}
	}
	for _, a := range accounts {
		tokens := ofMeter[a.Config.Drn]
		slices.SortFunc(tokens, func(a, b *prismtoken1.Token) int { return cmp.Compare(a.Tid, b.Tid) })
		for i, t := range tokens {
			if i > 0 && tokens[i-1].Tid == t.Tid {
				s.hole("kills: meter %s has two tokens of identifier %d", t.Drn, t.Tid)
			}
			if r, err := a.Meter.Enter(t.TokenDec, time.Now()); err != nil || !r.Accepted {
				s.hole("kills: meter %s does not take a token that was issued: %s", t.Drn, fmt.Sprint(r, err))
			}
		}
	}
}
