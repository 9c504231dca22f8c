package lifecycle_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	. "github.com/tesserae-hsm/tesserae/conformance/lifecycle"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/failure"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

var (
	lasts    = flag.Duration("lasts", 12*time.Second, "how long the provider's clients go on; minutes for a long run")
	seed     = flag.Uint64("seed", 0, "of the clients' choices and the kills; 0 draws one")
	binaries rigtest.Binaries
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(binaries.Main(m))
}

const (
	clients   = 8
	vcms      = 6 // at a time
	maxActive = 4
)

// TestOperationsAreLinearizable has eight clients create, start, stop, change,
// list and delete VCMs while the orchestrator, with the store inside it, is
// killed again and again.
func TestOperationsAreLinearizable(t *testing.T) {
	w := newWorld(t)
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	ctx, stop := context.WithTimeout(t.Context(), *lasts)
	defer stop()
	var working sync.WaitGroup
	for id := range clients {
		working.Go(func() { (&client{world: w, id: id, draw: rand.New(rand.NewPCG(*seed, uint64(id)))}).run(ctx) })
	}
	kills := w.kill(ctx, rand.New(rand.NewPCG(*seed, clients)))
	working.Wait()
	w.settle()
	w.check(kills)
}

// world is a unit, what its VCMs are and what was done to them.
type world struct {
	t      *testing.T
	rig    *rig.Rig
	direct *rig.Direct
	orch   *rig.Daemon
	epoch  time.Time

	mu      sync.Mutex
	made    map[string]*made // by name, also those whose answer was lost
	history []porcupine.Operation
	reads   int
}

// made is a VCM that was asked for.
type made struct {
	name   string
	signer ssh.Signer
	called int64
	uuid   string // "" until it is known
	gone   bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	r := binaries.New(t)
	w := &world{t: t, rig: r, epoch: time.Now(), made: map[string]*made{}}
	ctx := t.Context()
	if err := r.Maker(ctx); err != nil {
		t.Fatal(err)
	}
	_, orch, err := r.Unit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w.orch = orch
	if err := r.EnrolProvider(ctx); err != nil {
		t.Fatal(err)
	}
	for kind, value := range map[string]string{"speed": "HSMSpeed2", "max-active-vcms": fmt.Sprint(maxActive)} {
		if err := r.Licence(ctx, kind, value); err != nil {
			t.Fatal(err)
		}
	}
	if w.direct, err = r.Direct(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

// kill kills the orchestrator at random moments until ctx ends, and leaves it
// running.
func (w *world) kill(ctx context.Context, draw *rand.Rand) (kills int) {
	for {
		select {
		case <-time.After(time.Duration(300+draw.IntN(2500)) * time.Millisecond):
		case <-ctx.Done():
			return kills
		}
		w.rig.Kill(w.orch)
		kills++
		if err := w.rig.Restart(w.orch); err != nil {
			w.t.Error(err)
			return kills
		}
	}
}

func (w *world) now() int64 { return time.Since(w.epoch).Nanoseconds() }

func (w *world) note(id int, in Input, from int64, out Output) {
	to := w.now()
	if out.Outcome == Unknown {
		to = Never
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, porcupine.Operation{ClientId: id, Input: in, Call: from, Output: out, Return: to})
}

// client is one of the provider's scripts.
type client struct {
	*world
	id      int
	draw    *rand.Rand
	session *rig.Hosting
}

func (c *client) run(ctx context.Context) {
	defer c.hangUp()
	for ctx.Err() == nil {
		if c.session == nil {
			var err error
			if c.session, err = c.direct.Dial(ctx); err != nil {
				c.session = nil
				time.Sleep(20 * time.Millisecond)
				continue
			}
		}
		// A call is not ended with the test: its answer is wanted.
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		c.step(call)
		cancel()
	}
}

func (c *client) hangUp() {
	if c.session != nil {
		c.session.Close()
		c.session = nil
	}
}

func (c *client) step(ctx context.Context) {
	m := c.choose()
	if m == nil {
		c.create(ctx)
		return
	}
	switch n := c.draw.IntN(100); {
	case n < 30:
		c.do(ctx, m, Start, func() error { _, err := c.session.Start(ctx, m.uuid, nil, 20); return err })
	case n < 55:
		c.do(ctx, m, Stop, func() error { _, err := c.session.Stop(ctx, m.uuid, true, 5); return err })
	case n < 70:
		c.set(ctx, m)
	case n < 78:
		c.do(ctx, m, Delete, func() error { return c.session.Remove(ctx, m.uuid, true) })
	default:
		_ = c.list(ctx)
	}
}

// choose picks a VCM; none means that there is room for another one.
func (c *client) choose() *made {
	c.mu.Lock()
	defer c.mu.Unlock()
	var there []*made
	for _, m := range c.made {
		if m.uuid != "" && !m.gone {
			there = append(there, m)
		}
	}
	if len(there) < vcms && c.draw.IntN(vcms) >= len(there) {
		return nil
	}
	slices.SortFunc(there, func(a, b *made) int { return strings.Compare(a.name, b.name) })
	return there[c.draw.IntN(len(there))]
}

func (c *client) create(ctx context.Context) {
	key, err := rig.NewKey()
	if err != nil {
		c.t.Error(err)
		return
	}
	c.mu.Lock()
	m := &made{name: fmt.Sprintf("v%03d", len(c.made)), signer: key, called: c.now()}
	c.made[m.name] = m
	c.mu.Unlock()
	file, err := sign(m, request.Request{Kind: request.Create, SSHAdminKey: key.PublicKey(), RequestKey: key.PublicKey()})
	if err != nil {
		c.t.Error(err)
		return
	}
	c.do(ctx, m, Create, func() error {
		made, err := c.session.Create(ctx, file, &orchestrator.CreateChoices{Name: m.name})
		if err == nil {
			c.mu.Lock()
			m.uuid = made.Vcm.Uuid
			c.mu.Unlock()
		}
		return err
	})
}

func sign(m *made, r request.Request) ([]byte, error) {
	now := time.Now().UTC().Truncate(time.Second)
	r.ID, r.Created, r.NotBefore, r.Expires = uuid.NewString(), now, now.Add(-time.Minute), now.Add(time.Hour)
	return r.Sign(m.signer)
}

func (c *client) set(ctx context.Context, m *made) {
	value := c.draw.IntN(2) == 0
	file, err := sign(m, request.Request{Kind: request.SetProperties, VCM: m.uuid, Properties: request.Properties{Autostart: &value}})
	if err != nil {
		c.t.Error(err)
		return
	}
	in := Input{VCM: m.name, Verb: SetProperty, Value: value}
	from := c.now()
	_, err = c.session.SetProperty(ctx, file, m.uuid, request.PropertyAutostart, fmt.Sprint(value))
	c.judge(in, m, from, err)
}

func (c *client) do(_ context.Context, m *made, verb Verb, call func() error) {
	from := c.now()
	c.judge(Input{VCM: m.name, Verb: verb}, m, from, call())
}

// judge notes what an answer means. A broken connection ends the session.
func (c *client) judge(in Input, m *made, from int64, err error) {
	out := Output{Outcome: outcome(in.Verb, err)}
	var said *failure.Failure
	if err != nil && !errors.As(err, &said) {
		c.hangUp()
	}
	c.note(c.id, in, from, out)
	if out.Outcome == Missing || in.Verb == Delete && out.Outcome == Done {
		c.mu.Lock()
		m.gone = true
		c.mu.Unlock()
	}
}

func outcome(verb Verb, err error) Outcome {
	var f *failure.Failure
	switch {
	case err == nil:
		return Done
	case !errors.As(err, &f):
		return Unknown
	}
	switch errkind.Parse(f.Kind) {
	case errkind.NotFound:
		return Missing
	case errkind.Limit:
		return Full
	case errkind.Mode:
		has := func(text string) bool { return strings.Contains(f.Message, text) }
		switch {
		case has("being deleted"):
			return Missing // for everybody but the one who deletes it
		case verb == Start && !has("already") && !has("wait until"):
			return Overtaken
		}
		return Refused
	}
	return Unknown
}

// list reads every VCM that was asked for before.
func (c *client) list(ctx context.Context) error {
	from := c.now()
	all, err := c.session.ListVcms(ctx, false)
	if err != nil {
		c.hangUp()
		return err
	}
	found, active := map[string]*orchestrator.Vcm{}, 0
	for _, v := range all {
		found[v.Properties.Name] = v
		if runs(v) {
			active++
		}
		if v.State == "failed" {
			c.t.Errorf("VCM %s failed: %s", v.Properties.Name, v.Reason)
		}
	}
	if active > maxActive {
		c.t.Errorf("%d VCMs are active, %d are licensed", active, maxActive)
	}
	c.mu.Lock()
	c.reads++
	asked := make([]*made, 0, len(c.made))
	for _, m := range c.made {
		if v := found[m.name]; v != nil && m.uuid == "" {
			m.uuid = v.Uuid // its create had no answer
		}
		// Of those that are gone now and then: they must not come back.
		if m.called < from && (!m.gone || c.draw == nil || c.draw.IntN(50) == 0) {
			asked = append(asked, m)
		}
	}
	c.mu.Unlock()
	for _, m := range asked {
		out := Output{Outcome: Missing}
		if v := found[m.name]; v != nil && v.State != "deleting" {
			out = Output{Outcome: Done, Active: runs(v), Value: v.Properties.Autostart}
		}
		c.note(c.id, Input{VCM: m.name, Verb: Read}, from, out)
	}
	return nil
}

func runs(v *orchestrator.Vcm) bool {
	return v.State == "starting" || v.State == "running" || v.State == "stopping"
}

// settle waits until nothing is under way any more and reads everything once.
func (w *world) settle() {
	c := &client{world: w, id: clients}
	defer c.hangUp()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		busy, err := c.busy(ctx)
		if err == nil && busy == "" && c.list(ctx) == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			w.t.Fatalf("it does not settle: %v; stuck: %s", err, busy)
		}
	}
}

func (c *client) busy(ctx context.Context) (string, error) {
	c.hangUp()
	var err error
	if c.session, err = c.direct.Dial(ctx); err != nil {
		c.session = nil
		return "", err
	}
	all, err := c.session.ListVcms(ctx, false)
	for _, v := range all {
		if !slices.Contains([]string{"created", "running", "stopped"}, v.State) {
			return fmt.Sprintf("%s is %s (%s)", v.Properties.Name, v.State, v.Reason), err
		}
	}
	return "", err
}

func (w *world) check(kills int) {
	counts := map[string]int{}
	for _, op := range w.history {
		counts[fmt.Sprintf("%s %s", op.Input.(Input).Verb, op.Output.(Output).Outcome)]++
	}
	w.t.Logf("%d kills, %d VCMs, %d lists, %d events: %v", kills, len(w.made), w.reads, len(w.history), counts)
	for _, must := range []string{"create done", "start done", "stop done", "read done"} {
		if counts[must] == 0 {
			w.t.Errorf("no %s in the history: it proves nothing", must)
		}
	}
	if kills == 0 {
		w.t.Error("the orchestrator was never killed")
	}
	result, info := porcupine.CheckOperationsVerbose(Model(), w.history, 2*time.Minute)
	if result == porcupine.Ok {
		return
	}
	file := filepath.Join(os.TempDir(), "tesserae-lifecycle-history.html")
	err := porcupine.VisualizePath(Model(), info, file)
	w.t.Errorf("the history is not linearizable (%s); see %s (%v)", result, file, err)
	for _, part := range Model().Partition(w.history) {
		if porcupine.CheckOperations(Model(), part) {
			continue
		}
		wrong := FirstWrong(part)
		for _, op := range wrong[max(0, len(wrong)-30):] {
			w.t.Logf("client %d, %9.3f ms to %9.3f ms: %s", op.ClientId, float64(op.Call)/1e6, float64(op.Return)/1e6, Model().DescribeOperation(op.Input, op.Output))
		}
	}
}
