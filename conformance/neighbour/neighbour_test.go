package neighbour_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/neighbour"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
)

var (
	lasts    = flag.Duration("lasts", 1500*time.Millisecond, "how long each measurement of a benchmark lasts, alone and beside the noise")
	binaries rigtest.Binaries
	taken    hostile
)

// What makes this program a till, or one that holds connections.
const (
	envHold = "TESSERAE_HOLD_CONNECTIONS"
	envTill = "TESSERAE_TILL"
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(envHold) != "":
		var address string
		var n int
		if _, err = fmt.Sscan(os.Getenv(envHold), &address, &n); err == nil {
			err = neighbour.Hold(address, n, os.Stdin, os.Stdout)
		}
	case os.Getenv(envTill) != "":
		err = neighbour.ServeTill(context.Background(), os.Stdin, os.Stdout)
	default:
		flag.Parse()
		code := binaries.Main(m)
		_ = os.RemoveAll(taken.dir)
		os.Exit(code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// self is this program with one variable in its environment.
func self(t testing.TB, env string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = []string{env}
	return cmd
}

// till vends at v until the test ends.
func (v *vcm) till(t testing.TB, every time.Duration) *neighbour.TillProcess {
	t.Helper()
	ca, err := os.ReadFile(v.ca)
	if err != nil {
		t.Fatal(err)
	}
	till, err := neighbour.StartTill(self(t, envTill+"=1"), neighbour.Errand{
		Address: v.server.Address, CA: ca, User: user, Password: password, Meters: v.meters, Every: every,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := till.Close(); err != nil {
			t.Error(err)
		}
	})
	return till
}

// pair is a quiet VCM's till and a noisy VCM.
type pair struct {
	till  *neighbour.TillProcess
	noisy *vcm
}

func newPair(t testing.TB, every time.Duration, without ...string) pair {
	t.Helper()
	u := newUnit(t, without...)
	p := pair{till: u.vcm("quiet").till(t, every), noisy: u.vcm("noisy")}
	p.vend(t, 500*time.Millisecond) // warm
	return p
}

// vend returns how long the calls took; none may fail.
func (p pair) vend(t testing.TB, lasts time.Duration) []time.Duration {
	t.Helper()
	took, err := p.till.Vend(lasts)
	if err != nil {
		t.Fatal(err)
	}
	return took
}

const (
	// settle is how long a noise goes on before anything is measured.
	settle = 300 * time.Millisecond
	// rest is the silence after it: ten thousand connections take their time to go.
	rest = 1500 * time.Millisecond
)

// beside measures the quiet VCM before, beside and after a noise.
func (p pair) beside(t testing.TB, n noise, lasts time.Duration) (alone, beside []time.Duration, said string) {
	t.Helper()
	alone = p.vend(t, lasts/2)
	stop := n.start(t, p.noisy, settle+lasts)
	time.Sleep(settle)
	beside = p.vend(t, lasts)
	said = stop()
	time.Sleep(rest)
	return append(alone, p.vend(t, lasts/2)...), beside, said
}

// TestNeighbour: whatever a VCM does, the clients of another meet no error and do
// not wait out of proportion. How much longer they wait exactly is what the
// benchmark tells; a machine that others use too makes any tight limit here a
// matter of luck.
func TestNeighbour(t *testing.T) {
	p := newPair(t, 8*time.Millisecond)
	for _, n := range noises(fewConnections) {
		alone, beside, said := p.beside(t, n, 2*time.Second)
		a, b := neighbour.Summary(alone), neighbour.Summary(beside)
		t.Logf("%s: %s; alone %s; p99 %.1f times, p50 %.1f times that; %s", n.name, b, a, b.Over(a), float64(b.P50)/float64(a.P50), said)
		if starved(a, b) {
			t.Errorf("beside %s half of the calls take longer than %s", n.name, b.P50)
		}
	}
}

// starved is the criterion. Half of the calls are looked at and not the slowest:
// those are what another test on this machine delays.
func starved(alone, beside neighbour.Latency) bool {
	return beside.P50 > 20*time.Millisecond && beside.P50 > 10*alone.P50
}

// TestBusyNeighbour lets a VCM burn beside one that needs a good part of a
// processor for what is asked of it. With control groups it gets that; without
// them, where threads are what counts, it is starved, by the same criterion.
func TestBusyNeighbour(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("REDUCED: without root VCMs have no control groups: one that burns starves another")
		return
	}
	starves := func(without ...string) bool {
		p := newPair(t, 500*time.Microsecond, without...)
		const rounds = 3
		times := 0
		for range rounds {
			alone, beside, said := p.beside(t, forks(), time.Second)
			a, b := neighbour.Summary(alone), neighbour.Summary(beside)
			t.Logf("without %q: %s; alone %s; %s", without, b, a, said)
			if starved(a, b) {
				times++
			}
		}
		return 2*times > rounds
	}
	if starves() {
		t.Error("a VCM that burns starves another")
	}
	if !starves("cgroup") {
		t.Error("without control groups a VCM that burns starves nobody: that it does not with them proves nothing")
	}
}
