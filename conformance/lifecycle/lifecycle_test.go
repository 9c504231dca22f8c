package lifecycle_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/crypto/ssh"

	. "github.com/tesserae-hsm/tesserae/conformance/lifecycle"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/etcdtest"
)

var (
	lasts    = flag.Duration("lasts", 12*time.Second, "how long the provider's clients go on; minutes for a long run")
	seed     = flag.Uint64("seed", 0, "of the clients' choices and the kills; 0 draws one")
	binaries rigtest.Binaries
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	flag.Parse()
	os.Exit(binaries.Main(m))
}

const (
	clients   = 8
	vcms      = 6 // at a time
	maxActive = 4
)

// Eight clients create, start, stop, change, list and delete VCMs while the
// orchestrator, with the store inside it, is killed again and again.
func TestOperationsAreLinearizable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.play(map[string]func(*rand.Rand){"orchestrator": w.killOrchestrator})
}

// The same with the records in a cluster: its members are killed as well, one at a
// time and all at once.
func TestOperationsOnAClusterAreLinearizable(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 3)
	w := newWorld(t, "--etcd-endpoints", cluster.Endpoints())
	w.play(map[string]func(*rand.Rand){
		"orchestrator": w.killOrchestrator,
		"member": func(draw *rand.Rand) {
			i := draw.IntN(cluster.Len())
			cluster.Kill(i)
			time.Sleep(time.Duration(draw.IntN(1500)) * time.Millisecond)
			cluster.Restart(i)
		},
		"cluster": func(draw *rand.Rand) {
			for i := range cluster.Len() {
				cluster.Kill(i)
			}
			time.Sleep(time.Duration(draw.IntN(500)) * time.Millisecond)
			for i := range cluster.Len() {
				cluster.Restart(i)
			}
		},
	})
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

func newWorld(t *testing.T, flags ...string) *world {
	t.Helper()
	r := binaries.New(t)
	w := &world{t: t, rig: r, epoch: time.Now(), made: map[string]*made{}}
	ctx := t.Context()
	w.orch = furnish(t, r, flags...)
	for kind, value := range map[string]string{"speed": "HSMSpeed2", "max-active-vcms": fmt.Sprint(maxActive)} {
		if err := r.Licence(ctx, kind, value); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if w.direct, err = r.Direct(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

// play lets the clients work for a while and the faults happen at random moments,
// each in its turn, and judges what the clients saw.
func (w *world) play(faults map[string]func(*rand.Rand)) {
	w.t.Helper()
	seed := *seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	w.t.Logf("-seed %d", seed)
	ctx, stop := context.WithTimeout(w.t.Context(), *lasts)
	defer stop()
	var working sync.WaitGroup
	for id := range clients {
		working.Go(func() { (&client{world: w, id: id, draw: rand.New(rand.NewPCG(seed, uint64(id)))}).run(ctx) })
	}
	draw := rand.New(rand.NewPCG(seed, clients))
	kinds := slices.Sorted(maps.Keys(faults))
	count := map[string]int{}
	for n := 0; ; n++ {
		select {
		case <-time.After(time.Duration(300+draw.IntN(2500)) * time.Millisecond):
			kind := kinds[n%len(kinds)]
			faults[kind](draw)
			count[kind]++
			continue
		case <-ctx.Done():
		}
		break
	}
	working.Wait()
	w.settle()
	for _, kind := range kinds {
		if count[kind] == 0 {
			w.t.Errorf("the %s was never killed", kind)
		}
	}
	w.check(fmt.Sprint(count))
}

func (w *world) killOrchestrator(*rand.Rand) {
	w.rig.Kill(w.orch)
	if err := w.rig.Restart(w.orch); err != nil {
		w.t.Error(err)
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

func (w *world) check(faults string) {
	counts := map[string]int{}
	for _, op := range w.history {
		counts[fmt.Sprintf("%s %s", op.Input.(Input).Verb, op.Output.(Output).Outcome)]++
	}
	w.t.Logf("killed %s, %d VCMs, %d lists, %d events: %v", faults, len(w.made), w.reads, len(w.history), counts)
	for _, must := range []string{"create done", "start done", "stop done", "read done"} {
		if counts[must] == 0 {
			w.t.Errorf("no %s in the history: it proves nothing", must)
		}
	}
	result, info := porcupine.CheckOperationsVerbose(Model(), w.history, 2*time.Minute)
	if result == porcupine.Ok {
		return
	}
	file := filepath.Join(os.TempDir(), "tesserae-lifecycle-"+w.t.Name()+".html")
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
