package neighbour_test

import (
	"flag"
	"os"
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

func TestMain(m *testing.M) {
	flag.Parse()
	code := binaries.Main(m)
	_ = os.RemoveAll(taken.dir)
	os.Exit(code)
}

// till vends at v until the test ends.
func (v *vcm) till(t testing.TB, every time.Duration) *neighbour.TillProcess {
	t.Helper()
	ca, err := os.ReadFile(v.ca)
	if err != nil {
		t.Fatal(err)
	}
	till, err := neighbour.StartTill(taken.clients(), neighbour.Errand{
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
		if starved(a, b) && free(a) {
			t.Errorf("beside %s half of the calls take longer than %s", n.name, b.P50)
		}
	}
}

// starved is the criterion. Half of the calls are looked at and not the slowest:
// those are what another test on this machine delays.
func starved(alone, beside neighbour.Latency) bool {
	return beside.P50 > 30*time.Millisecond && beside.P50 > 10*alone.P50
}

// free reports whether nobody else used the processors while there was no noise:
// only then can a VCM that is starved be told from one that is not.
func free(alone neighbour.Latency) bool { return alone.P90 < 2*time.Millisecond }

// TestBusyNeighbour lets a VCM burn beside one that needs a good part of a
// processor for what is asked of it. With control groups it gets that; without
// them, where threads are what counts, it is starved, by the same criterion.
func TestBusyNeighbour(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("REDUCED: without root VCMs have no control groups: one that burns starves another")
		return
	}
	const rounds, enough = 3, 2
	// starves reports in how many rounds the quiet VCM was starved, of those in
	// which the machine had the time to serve it when there was no noise.
	starves := func(without ...string) (times, of int) {
		p := newPair(t, 500*time.Microsecond, without...)
		for range rounds {
			alone, beside, said := p.beside(t, forks(), time.Second)
			a, b := neighbour.Summary(alone), neighbour.Summary(beside)
			t.Logf("without %q: %s; alone %s; %s", without, b, a, said)
			if !free(a) {
				continue
			}
			of++
			if starved(a, b) {
				times++
			}
		}
		return times, of
	}
	times, of := starves()
	bad, ofBad := starves("cgroup")
	switch {
	case of < enough || ofBad < enough:
		t.Log("REDUCED: the machine is too busy to tell a VCM that is starved from one that is not")
	case 2*times > of:
		t.Error("a VCM that burns starves another")
	case 2*bad <= ofBad:
		t.Error("without control groups a VCM that burns starves nobody: that it does not with them proves nothing")
	}
}
