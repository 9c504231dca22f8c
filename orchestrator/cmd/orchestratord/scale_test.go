package main

import (
	"flag"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

var scaleN = flag.Int("scale.n", 24, "number of VCMs in TestScale")

// Many VCMs, with the orchestrator killed between the steps: nothing is lost
// and nothing is left stuck. The times are printed; bounds on them are those
// that hold for any number.
func TestScale(t *testing.T) {
	w := newWorld(t, "--log-level", "error")
	n := *scaleN
	w.licence("max-active-vcms", fmt.Sprint(n))
	file := newTenant(t).sign(t, request.Request{Kind: request.Create})
	var mu sync.Mutex
	var ids []string
	crash := func() {
		w.orch.end(syscall.SIGKILL)
		took := since(func() { w.startOrchestrator() })
		t.Logf("%-28s %s", "restart after kill -9", took)
	}
	each := func(what string, items []string, fn func(o *orchestrator.OrchestratorClient, item string) error) {
		took := since(func() { w.inParallel(items, fn) })
		t.Logf("%-28s %s", fmt.Sprintf("%s %d", what, len(items)), took)
	}
	each("create", make([]string, n), func(o *orchestrator.OrchestratorClient, _ string) error {
		c, err := o.Create(t.Context(), file, &orchestrator.CreateChoices{Name: "many"})
		if err == nil {
			mu.Lock()
			ids = append(ids, c.Vcm.Uuid)
			mu.Unlock()
		}
		return err
	})
	crash()
	each("start", ids, func(o *orchestrator.OrchestratorClient, id string) error {
		_, err := o.Start(t.Context(), id, nil, 120)
		return err
	})
	o := w.orchestrator()
	t.Logf("%-28s %s", "list", since(func() { w.all(o, n, "running") }))
	t.Logf("%-28s %s", "stats", since(func() {
		s, err := o.Stats(t.Context(), "")
		if err != nil || len(s) != n {
			t.Errorf("%d stats of %d (%v)", len(s), n, err)
		}
		var memory int64
		var cpu float64
		for _, v := range s {
			memory += v.Memory
			cpu += v.CpuSeconds
		}
		k := max(1, len(s))
		t.Logf("%-28s %d MiB, %.1f ms", "resident memory, CPU of each", memory/int64(k)>>20, cpu*1000/float64(k))
	}))
	crash()
	took := since(func() {
		o = w.orchestrator()
		// Asking costs as much as starting a few: not too often.
		for deadline := time.Now().Add(patience + time.Duration(n)*100*time.Millisecond); w.count(o, "running") != n; {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d run again", w.count(o, "running"), n)
			}
			time.Sleep(time.Duration(n) * time.Millisecond)
		}
	})
	t.Logf("%-28s %s", "all running again", took)
	each("stop", ids, func(o *orchestrator.OrchestratorClient, id string) error {
		_, err := o.Stop(t.Context(), id, true, 30)
		return err
	})
	crash()
	w.all(w.orchestrator(), n, "stopped")
	each("delete", ids, func(o *orchestrator.OrchestratorClient, id string) error {
		return o.Remove(t.Context(), id, true)
	})
	w.all(w.orchestrator(), 0, "")
}

func since(fn func()) time.Duration {
	began := time.Now()
	fn()
	return time.Since(began).Round(time.Millisecond)
}

// inParallel does fn for each item over 16 sessions.
func (w *world) inParallel(items []string, fn func(*orchestrator.OrchestratorClient, string) error) {
	w.t.Helper()
	work := make(chan string)
	var workers sync.WaitGroup
	for range 16 {
		o := w.orchestrator()
		workers.Go(func() {
			for item := range work {
				if err := fn(o, item); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	for _, item := range items {
		work <- item
	}
	close(work)
	workers.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

func (w *world) all(o *orchestrator.OrchestratorClient, n int, state string) {
	w.t.Helper()
	if got := w.count(o, state); got != n {
		w.t.Errorf("%d VCMs are %s, want %d", got, state, n)
	}
}

// count counts the VCMs in a state, all of them for "".
func (w *world) count(o *orchestrator.OrchestratorClient, state string) int {
	w.t.Helper()
	list, err := o.ListVcms(w.t.Context(), false)
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, v := range list {
		if state == "" || v.State == state {
			n++
		}
	}
	return n
}
