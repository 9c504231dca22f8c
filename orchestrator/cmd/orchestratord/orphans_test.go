package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// VCMs serve on without an orchestrator for as long as they may, and no longer; an
// orderly end leaves nobody behind.
func TestOrphans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, pid := w.serving()
	forker := parentOf(t, pid)
	w.orch.end(syscall.SIGKILL)
	w.extra = []string{"--orphan-grace", "1s"}
	w.startOrchestrator()
	o := w.orchestrator()
	if v, err := o.Show(t.Context(), id); err != nil || v.State != "running" || v.Restarts != 0 {
		t.Errorf("%+v %v", v, err)
	}
	resp, err := http.Get("http://" + w.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, line := range []string{"vcm_state{state=\"running\",uuid=\"" + id + "\"} 1", "vcm_restarts{uuid=\"" + id + "\"} 0", "vcm_memory_bytes{uuid=\"" + id + "\"} ", "vcm_isolation_level{level=\""} {
		if err != nil || !strings.Contains(string(text), line) {
			t.Errorf("the metrics have no %s (%v)", line, err)
		}
	}
	if now := processOf(t, id); now != pid || parentOf(t, now) != forker {
		t.Errorf("process %d of %d, was %d of %d", now, parentOf(t, now), pid, forker)
	}

	w.orch.end(syscall.SIGKILL)
	eventually(t, "the VCM and who keeps it end", func() bool { return !lives(pid) && !lives(forker) })
	w.startOrchestrator()
	o = w.orchestrator()
	eventually(t, "it is started again", func() bool {
		v, err := o.Show(t.Context(), id)
		return err == nil && v.State == "running"
	})
	pid = processOf(t, id)
	forker = parentOf(t, pid)
	if code := w.orch.end(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d\n%s", code, w.orch.log)
	}
	if lives(pid) || lives(forker) {
		t.Errorf("VCM %d: %t, forker %d: %t", pid, lives(pid), forker, lives(forker))
	}
	if _, err := os.Stat(w.path("o/forker.sock")); !os.IsNotExist(err) {
		t.Errorf("its socket: %v", err)
	}
}

// A failure of the orchestrator's own is not the VCMs' end.
func TestFailureLeavesVCMsServing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, pid := w.serving()
	w.orch.end(syscall.SIGKILL)
	// The unit file is the last thing that is written before the services answer.
	if err := os.Remove(w.path("o/unit.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(w.path("o/unit.json/in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, _ := w.daemon("orchestratord", "run", "--state", w.path("o"), "--hsm-socket", w.path("hsm.sock"), "--orphan-grace", "20s")
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatal("it runs without a unit file")
	}
	if code := p.cmd.ProcessState.ExitCode(); code == 0 || !strings.Contains(p.log.String(), "serve on") {
		t.Errorf("it ended with %d\n%s", code, p.log)
	}
	if !lives(pid) {
		t.Fatal("the VCM ended with it")
	}
	if err := os.RemoveAll(w.path("o/unit.json")); err != nil {
		t.Fatal(err)
	}
	w.startOrchestrator()
	if v, err := w.orchestrator().Show(t.Context(), id); err != nil || v.State != "running" || processOf(t, id) != pid {
		t.Errorf("%+v %v", v, err)
	}
}

// serving makes a VCM that serves.
func (w *world) serving() (id string, pid int) {
	w.t.Helper()
	o := w.orchestrator()
	id = w.create(o, newTenant(w.t), "serving").Vcm.Uuid
	w.start(o, id)
	return id, processOf(w.t, id)
}

func lives(pid int) bool {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(p), ") Z ")
}

func parentOf(t *testing.T, pid int) (parent int) {
	t.Helper()
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(p), ") ")
	if _, err := fmt.Sscanf(rest, "%1s %d", new(string), &parent); err != nil {
		t.Fatal(err)
	}
	return parent
}
