package crash_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// TestForkerKilled kills who keeps the VCMs, alone, in the middle of a start, and
// together with the orchestrator: no process is left that nobody keeps, and every
// VCM comes back.
func TestForkerKilled(t *testing.T) {
	t.Parallel()
	rnd := random(t)
	r := binaries.New(t)
	first, err := r.Hosted(t.Context(), rig.Plan{Name: "first", Licences: []string{"max-active-vcms=2"}, Orchestrator: []string{"--restart-pause", "100ms"}})
	if err != nil {
		t.Fatal(err)
	}
	request, err := r.Request(t.Context(), "second")
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.Create(t.Context(), request, "second")
	if err != nil {
		t.Fatal(err)
	}
	watch := watchCopies(first.UUID, second.UUID)
	k := &killer{t: t, r: r, rnd: rnd}
	both := map[string]string{"first": "running", "second": "running"}
	for i := range 2 * *kills {
		before := only(t, r, first.UUID)
		forker, ok := r.Forker()
		if !ok {
			t.Fatal("there is no forker")
		}
		host := r.Daemon(orchestratord)
		switch i % 3 {
		case 0:
		case 1: // a start may or may not be told to have failed
			if _, err := r.Run(t.Context(), rig.Provider, "vcmadmin", "stop", "--yes", "--force", second.UUID); err != nil {
				t.Fatal(err)
			}
			p := &provider{killer: *k}
			p.begin("vcmadmin", "start", second.UUID)
			k.pause(60 * time.Millisecond)
			defer func() { <-p.command }()
		case 2:
			r.Kill(host)
		}
		if err := forker.Kill(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); before.Alive(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("process %d lives on although nobody keeps it", before.PID)
			}
		}
		if i%3 == 2 {
			if err := r.Restart(host); err != nil {
				t.Fatal(err)
			}
		}
		// That the process has ended is not known at once.
		for end := time.Now().Add(recovery); rig.Copies(first.UUID) == 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the VCM was not started again within %s", recovery)
			}
		}
		awaitStates(t, r, both)
		if after := only(t, r, first.UUID); after == before {
			t.Errorf("process %d is there again", after.PID)
		}
	}
	watch(t)
}

// TestSecondStateFolder starts an orchestrator on a copy of the state folder, which
// does not know who keeps the VCMs: it gets nowhere, and the VCM serves on.
func TestSecondStateFolder(t *testing.T) {
	t.Parallel()
	r, v := binaries.Full(t, rig.Plan{Name: "one", Orchestrator: []string{"--orphan-grace", "1m"}, Groups: []rig.SupplyGroup{{SGC: openGroup, DKG: "04", Name: "Open"}}})
	accounts, err := r.Accounts(openGroup, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	patient := &steady{books: &ledger{}}
	for _, a := range accounts {
		patient.vend(t, v, a)
	}
	was := only(t, r, v.UUID)
	host := r.Daemon(orchestratord)
	r.Kill(host)
	copyTree(t, r.Path("platform"), r.Path("copy"))
	other, err := r.Start(rig.Provider, "orchestratord", "run", "--state", r.Path("copy"), "--hsm-socket", r.Path("hsmd.sock"),
		"--vcmd", filepath.Join(binaries.Dir(t), "vcmd"), "--network", r.Network())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	if n := rig.Copies(v.UUID); n != 1 {
		t.Errorf("%d processes of the VCM", n)
	}
	r.Kill(other)
	if err := r.Restart(host); err != nil {
		t.Fatal(err)
	}
	awaitStates(t, r, map[string]string{"one": "running"})
	if now := only(t, r, v.UUID); now != was {
		t.Errorf("the VCM's process is %d, was %d", now.PID, was.PID)
	}
	patient.end()
	if patient.books.tokens() == 0 {
		t.Error("nothing was vended")
	}
	none(t, twins(patient.books.calls))
}

// copyTree copies folders and files.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(at, 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
		return out.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}
