package launch_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

func hasty() launch.Policy {
	return launch.Policy{
		Ready: 10 * time.Second, First: time.Millisecond, Last: 10 * time.Millisecond,
		Attempts: 4, Stable: time.Hour, Drain: 100 * time.Millisecond,
	}
}

// diary keeps what a supervisor reported.
type diary struct {
	mu   sync.Mutex
	all  []launch.Report
	news chan struct{}
}

func (d *diary) write(_ context.Context, r launch.Report) {
	d.mu.Lock()
	d.all = append(d.all, r)
	d.mu.Unlock()
	d.news <- struct{}{}
}

func (d *diary) events() []lifecycle.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []lifecycle.Event
	for _, r := range d.all {
		out = append(out, r.Event)
	}
	return out
}

func (d *diary) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-d.news:
		case <-time.After(20 * time.Second):
			t.Fatalf("only %v was reported", d.events())
		}
	}
}

func supervise(t *testing.T, ctx context.Context, policy launch.Policy, names ...string) (*launch.Supervisor, *diary) {
	t.Helper()
	l := launcher(t, launch.Config{})
	d := &diary{news: make(chan struct{}, 100)}
	specs := make([]launch.Spec, len(names))
	for i, n := range names {
		specs[i] = spec(t, n)
	}
	next := 0
	s := launch.Supervise(ctx, policy, quiet(), func(ctx context.Context) (*launch.Process, error) {
		sp := specs[min(next, len(specs)-1)]
		next++
		return l.Launch(ctx, sp)
	}, d.write)
	t.Cleanup(func() {
		_ = s.Stop(context.WithoutCancel(ctx), vcmcontrol.Stop{Force: true})
		<-s.Done()
	})
	return s, d
}

func TestLostProcessIsStartedAgain(t *testing.T) {
	t.Parallel()
	s, d := supervise(t, t.Context(), hasty(), "crash:1", "exit", "serve")
	d.wait(t, 4)
	want := []lifecycle.Event{lifecycle.Ready, lifecycle.Lost, lifecycle.Lost, lifecycle.Ready}
	if got := d.events(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := s.Stop(t.Context(), vcmcontrol.Stop{}); err != nil {
		t.Error(err)
	}
	if got := d.events(); !slices.Equal(got, want) {
		t.Errorf("a stop was reported: %v", got)
	}
}

func TestSupervisionGivesUp(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"exit":  "[lost lost lost give-up]",
		"final": "[give-up]",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, d := supervise(t, t.Context(), hasty(), name)
			<-s.Done()
			if got := fmt.Sprint(d.events()); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if r := d.all[len(d.all)-1]; r.Reason == "" {
				t.Error("no reason given")
			}
		})
	}
}

func TestStableServiceForgivesEarlierFailures(t *testing.T) {
	t.Parallel()
	p := hasty()
	p.Attempts, p.Stable = 2, time.Nanosecond
	_, d := supervise(t, t.Context(), p, "crash:1", "crash:1", "crash:1", "serve")
	d.wait(t, 7)
	if got, want := fmt.Sprint(d.events()), "[ready lost ready lost ready lost ready]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestServiceThatIsLostOftenIsNotGivenUp(t *testing.T) {
	t.Parallel()
	p := hasty()
	p.Attempts = 2
	_, d := supervise(t, t.Context(), p, "crash:1", "exit", "crash:1", "crash:1", "crash:1", "serve")
	d.wait(t, 10)
	if got, want := fmt.Sprint(d.events()), "[ready lost lost ready lost ready lost ready lost ready]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestDeclinedStopLeavesItRunning(t *testing.T) {
	t.Parallel()
	s, d := supervise(t, t.Context(), hasty(), "busy")
	d.wait(t, 1)
	if err := s.Stop(t.Context(), vcmcontrol.Stop{}); !errkind.Is(err, errkind.Mode) {
		t.Fatalf("%v", err)
	}
	p, ok := s.Process()
	if !ok {
		t.Fatal("no process")
	}
	if _, err := p.Stats(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Stop(t.Context(), vcmcontrol.Stop{Force: true}); err != nil {
		t.Error(err)
	}
}

func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	s, d := supervise(t, t.Context(), hasty(), "mute")
	time.Sleep(20 * time.Millisecond)
	if err := s.Stop(t.Context(), vcmcontrol.Stop{}); err != nil {
		t.Error(err)
	}
	if len(d.events()) != 0 {
		t.Errorf("%v", d.events())
	}
}

func TestEndOfContextEndsTheProcess(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s, d := supervise(t, ctx, hasty(), "serve")
	d.wait(t, 1)
	p, _ := s.Process()
	cancel()
	<-s.Done()
	select {
	case <-p.Done():
	default:
		t.Error("the process is left")
	}
}

func TestRestartIsNoFailure(t *testing.T) {
	t.Parallel()
	p := hasty()
	p.Attempts = 1
	s, d := supervise(t, t.Context(), p, "serve")
	d.wait(t, 1)
	for range 3 {
		if err := s.Restart(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
		d.wait(t, 2)
	}
	if got, want := fmt.Sprint(d.events()), "[ready lost ready lost ready lost ready]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
