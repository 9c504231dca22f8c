package lifecycle_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

var at = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// The whole machine, once more and by hand: a state's name is a move, "-" stays,
// "." ignores, "!" refuses. Columns in the order of lifecycle.States.
const table = `
         created  starting running  stopping stopped  failed   deleting
start    starting -        !        !        starting starting !
ready    .        running  .        .        .        .        .
lost     .        -        starting stopped  .        .        .
give-up  .        failed   failed   stopped  .        .        .
stop     !        stopping stopping -        !        stopped  !
kept     .        .        .        running  .        .        .
ended    .        .        .        stopped  .        .        .
delete   deleting !        !        !        deleting deleting -
recover  -        -        starting stopped  -        -        -
reboot   -        stopped  stopped  stopped  -        -        -
`

func TestEveryStateAndEventIsDecided(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	states := strings.Fields(lines[0])
	if len(states) != len(lifecycle.States()) || len(lines)-1 != len(lifecycle.Events()) {
		t.Fatalf("the table has %d states and %d events, the package %d and %d",
			len(states), len(lines)-1, len(lifecycle.States()), len(lifecycle.Events()))
	}
	for i, line := range lines[1:] {
		cells := strings.Fields(line)
		event := lifecycle.Event(cells[0])
		if event != lifecycle.Events()[i] {
			t.Fatalf("row %d is %q, want %q", i, event, lifecycle.Events()[i])
		}
		for j, want := range cells[1:] {
			state := lifecycle.State(states[j])
			before := lifecycle.Record{UUID: "u", State: state, Changed: at.Add(-time.Hour), Reason: "old"}
			after, changed, err := before.Apply(event, at, "new")
			switch want {
			case "!":
				if !errkind.Is(err, errkind.Mode) || changed {
					t.Errorf("%s in %s: changed=%v err=%v, want a refusal", event, state, changed, err)
				}
			case "-", ".":
				d, _ := lifecycle.Decide(state, event)
				verdict := map[string]lifecycle.Verdict{"-": lifecycle.Stay, ".": lifecycle.Ignore}[want]
				if err != nil || changed || after.State != state || after.Reason != "old" || d.Verdict != verdict {
					t.Errorf("%s in %s: %+v %v %v (%v)", event, state, after, changed, err, d)
				}
			default:
				if err != nil || !changed || string(after.State) != want || after.Reason != "new" || !after.Changed.Equal(at) {
					t.Errorf("%s in %s: %+v %v %v, want %s", event, state, after, changed, err, want)
				}
			}
		}
	}
}

func TestUnknownStateOrEventIsAnError(t *testing.T) {
	t.Parallel()
	if _, _, err := (lifecycle.Record{State: "melting"}).Apply(lifecycle.Start, at, ""); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("unknown state: %v", err)
	}
	if _, _, err := (lifecycle.Record{State: lifecycle.Running}).Apply("sneeze", at, ""); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("unknown event: %v", err)
	}
}

// From every state, whatever happened, the provider can get rid of a VCM with
// the commands he has: nothing is left stuck.
func TestNothingIsStuck(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := lifecycle.Record{UUID: "u", State: lifecycle.Created}
		for _, e := range rapid.SliceOfN(rapid.SampledFrom(lifecycle.Events()), 0, 30).Draw(t, "events") {
			next, _, err := r.Apply(e, at, "")
			if err == nil {
				r = next
			}
		}
		for _, e := range []lifecycle.Event{lifecycle.Recover, lifecycle.Stop, lifecycle.Ended, lifecycle.Delete} {
			if next, _, err := r.Apply(e, at, ""); err == nil {
				r = next
			}
		}
		if r.State != lifecycle.Deleting {
			t.Fatalf("left in %s", r.State)
		}
	})
}

func TestRestartsAreCountedFromTheLastStart(t *testing.T) {
	t.Parallel()
	r := lifecycle.Record{State: lifecycle.Created, Restarts: 7}
	for _, e := range []lifecycle.Event{lifecycle.Start, lifecycle.Ready, lifecycle.Lost, lifecycle.Ready, lifecycle.Lost, lifecycle.Ready} {
		r, _, _ = r.Apply(e, at, "")
	}
	if r.Restarts != 2 || r.State != lifecycle.Running {
		t.Errorf("%s after %d restarts, want running after 2", r.State, r.Restarts)
	}
}

func TestActive(t *testing.T) {
	t.Parallel()
	var active []lifecycle.State
	for _, s := range lifecycle.States() {
		if s.Active() {
			active = append(active, s)
		}
	}
	if len(active) != 3 || active[0] != lifecycle.Starting || active[2] != lifecycle.Stopping {
		t.Errorf("active states are %v", active)
	}
}

func TestRecordSurvivesItsStoredForm(t *testing.T) {
	t.Parallel()
	r := lifecycle.Record{
		UUID: "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209", ESN: "AAAA-BBBB-CCCC", State: lifecycle.Failed, Reason: "why",
		Properties: lifecycle.Properties{Name: "n", Autostart: true, Features: 0x9a37, ConductorPort: 5105}, Created: at, Changed: at, File: []byte("file"),
	}
	p, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := lifecycle.Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Marshal()
	if err != nil || string(again) != string(p) {
		t.Errorf("%s\nbecame\n%s (%v)", p, again, err)
	}
	r.Properties.ConductorPort = 0 // as records were before the port could be chosen
	if p, err = r.Marshal(); err != nil {
		t.Fatal(err)
	}
	if back, err = lifecycle.Parse(p); err != nil || back.Properties.ConductorPort != 5100 {
		t.Errorf("%+v %v", back.Properties, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range lifecycle.States() {
		p, _ := lifecycle.Record{UUID: "u", State: s}.Marshal()
		f.Add(p)
	}
	f.Add([]byte(`{"state":"melting"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := lifecycle.Parse(p)
		if err != nil {
			if !errkind.Is(err, errkind.Integrity) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		q, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(q) {
			t.Fatalf("not JSON: %s", q)
		}
		if _, err := lifecycle.Parse(q); err != nil {
			t.Fatalf("own form refused: %v", err)
		}
	})
}
