// Package crash_test kills the daemons of a whole platform with SIGKILL while it
// works, at random instants, and checks that nothing is lost, doubled or stuck.
//
// The seed of a run is printed; -crash.seed repeats its choices. -crash.kills
// makes it long.
package crash_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
)

var (
	kills = flag.Int("crash.kills", 3, "how often each daemon is killed")
	seed  = flag.Uint64("crash.seed", 0, "seed of the random choices; 0 draws one")

	binaries rigtest.Binaries
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(binaries.Main(m))
}

// random returns the run's choices.
func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("to repeat: -crash.seed=%d -crash.kills=%d", s, *kills)
	return rand.New(rand.NewPCG(s, 0))
}

// The daemons that are killed.
const (
	hsmd          = "hsmd"
	orchestratord = "orchestratord"
	vcmd          = "vcmd"
)

// schedule is every daemon kills times, in random order.
func schedule(rnd *rand.Rand, kills int, daemons ...string) []string {
	var out []string
	for _, d := range daemons {
		for range kills {
			out = append(out, d)
		}
	}
	rnd.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// killer kills daemons of one rig.
type killer struct {
	t   *testing.T
	r   *rig.Rig
	rnd *rand.Rand
}

// pause waits for a random time up to most.
func (k *killer) pause(most time.Duration) { time.Sleep(time.Duration(k.rnd.Int64N(int64(most)))) }

// kill ends a daemon and starts it again as its host would; vcmd is the
// orchestrator's to start.
func (k *killer) kill(victim string) {
	k.t.Helper()
	if victim == vcmd {
		k.killVCM()
		return
	}
	d := k.r.Daemon(victim)
	k.r.Kill(d)
	k.pause(500 * time.Millisecond)
	if err := k.r.Restart(d); err != nil {
		k.t.Fatal(err)
	}
}

func (k *killer) killVCM() {
	k.t.Helper()
	for end := time.Now().Add(recovery); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, p := range k.r.VCMs() {
			if p.Kill() == nil {
				return
			}
		}
	}
	k.t.Fatalf("no process of a VCM within %s", recovery)
}

// states are the VCMs' states by name.
func states(ctx context.Context, r *rig.Rig) (map[string]string, error) {
	out, err := r.Run(ctx, rig.Provider, "vcmadmin", "list", "--json")
	if err != nil {
		return nil, err
	}
	var vcms []struct{ Name, State string }
	if err := json.Unmarshal([]byte(out), &vcms); err != nil {
		return nil, fmt.Errorf("vcmadmin list answered %q: %w", out, err)
	}
	states := map[string]string{}
	for _, v := range vcms {
		states[v.Name] = v.State
	}
	return states, nil
}

// awaitStates waits until every VCM is in its state again.
func awaitStates(t *testing.T, r *rig.Rig, want map[string]string) {
	t.Helper()
	var got map[string]string
	var err error
	for end := time.Now().Add(recovery); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if got, err = states(t.Context(), r); err == nil && maps.Equal(got, want) {
			return
		}
	}
	t.Fatalf("the VCMs are %v, not %v: %v", got, want, err)
}

// recovery is how long the path may take to go on after a crash.
const recovery = 45 * time.Second

// TestStartOrder kills both daemons and starts them again in the wrong order, as
// a host may that starts each by itself. The VCM does not end with them.
func TestStartOrder(t *testing.T) {
	t.Parallel()
	r := binaries.New(t)
	v, err := r.Hosted(t.Context(), rig.Plan{Name: "only", Request: []string{"--autostart"}})
	if err != nil {
		t.Fatal(err)
	}
	was := only(t, r, v.UUID)
	before, err := states(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	unit, host := r.Daemon(hsmd), r.Daemon(orchestratord)
	r.Kill(unit)
	r.Kill(host)
	if err := r.Restart(host); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := r.Restart(unit); err != nil {
		t.Fatal(err)
	}
	awaitStates(t, r, before)
	if now := only(t, r, v.UUID); now != was {
		t.Errorf("the VCM's process is %d, was %d", now.PID, was.PID)
	}
}
