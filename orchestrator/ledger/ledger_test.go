package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

func open(t *testing.T, dir string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func update(t *testing.T, l *ledger.Ledger, fn func(ledger.Tx) error) {
	t.Helper()
	if err := l.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// state is everything that the provider can set.
type state struct {
	Run      ledger.Run
	Networks ledger.Networks
	Clients  map[string]ledger.Client
	Licences [][]byte
}

func read(t *testing.T, l *ledger.Ledger) (s state) {
	t.Helper()
	err := l.View(func(tx ledger.Tx) error {
		var errs [4]error
		s.Run, errs[0] = tx.Run()
		s.Networks, errs[1] = tx.Networks()
		s.Clients, errs[2] = tx.Clients()
		s.Licences, errs[3] = tx.Licences()
		return errors.Join(errs[:]...)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatWasStoredIsThereAfterwards(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	if s := read(t, l); !reflect.DeepEqual(s, state{Clients: map[string]ledger.Client{}}) {
		t.Errorf("a new ledger holds %+v", s)
	}
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	want := state{
		Run:      ledger.Run{Owner: "o", Boot: "b", Serving: true, Ports: map[string]string{"setup": "1"}},
		Networks: ledger.Networks{Current: network.Settings{Kind: "default"}, Next: &network.Settings{Kind: "ipv4static", Address: "192.0.2.0/24"}},
		Clients:  map[string]ledger.Client{"setup": {Key: "k", Installed: at}},
		Licences: [][]byte{[]byte("z"), []byte("a"), []byte("m")},
	}
	update(t, l, func(tx ledger.Tx) error {
		return errors.Join(tx.SetRun(want.Run), tx.SetNetworks(want.Networks), tx.SetClient("setup", want.Clients["setup"]))
	})
	for _, f := range want.Licences {
		update(t, l, func(tx ledger.Tx) error { return tx.AddLicence(f) })
	}
	l.Close()
	l = open(t, dir)
	if got := read(t, l); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	update(t, l, ledger.Tx.Forget)
	if got := read(t, l); !reflect.DeepEqual(got, state{Run: want.Run, Clients: map[string]ledger.Client{}}) {
		t.Errorf("after Forget: %+v", got)
	}
}

func TestAnErrorUndoesTheTransaction(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	bad := errors.New("no")
	err := l.Update(t.Context(), func(tx ledger.Tx) error {
		if err := tx.SetRun(ledger.Run{Owner: "x"}); err != nil {
			return err
		}
		return bad
	})
	if !errors.Is(err, bad) || read(t, l).Run.Owner != "" {
		t.Errorf("%v, owner %q", err, read(t, l).Run.Owner)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Update(ctx, func(ledger.Tx) error { return nil }); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("with a context that is over: %v", err)
	}
}

func TestOneOrchestratorAStateFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir)
	if _, err := ledger.Open(dir); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("a second one: %v", err)
	}
}

func TestBucketRange(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	update(t, l, func(tx ledger.Tx) error {
		b := tx.Log()
		for _, k := range []string{"b2", "a", "b1", "c", "b"} {
			if err := b.Put([]byte(k), []byte(k)); err != nil {
				return err
			}
		}
		return b.Delete([]byte("c"))
	})
	var got []byte
	err := l.View(func(tx ledger.Tx) error {
		if v, err := tx.Log().Get([]byte("c")); v != nil || err != nil {
			t.Errorf("absent: %q %v", v, err)
		}
		return tx.Log().Range([]byte("b"), func(k, _ []byte) error { got = append(append(got, k...), ' '); return nil })
	})
	if err != nil || string(got) != "b b1 b2 " {
		t.Errorf("%q %v", got, err)
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, dir)
	a, err := l.Key("host-setup")
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.Key("host-setup")
	if err != nil || !bytes.Equal(a, again) {
		t.Errorf("another key the second time (%v)", err)
	}
	b, err := l.Key("host-monitor")
	if err != nil || bytes.Equal(a, b) {
		t.Errorf("the same key for two services (%v)", err)
	}
	st, err := os.Stat(l.KeyPath("host-setup"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", st.Mode(), err)
	}
	if err := os.WriteFile(l.KeyPath("host-setup"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Key("host-setup"); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("a damaged key: %v", err)
	}
	for range 2 {
		if err := l.DropKey("host-setup"); err != nil {
			t.Error(err)
		}
	}
	if fresh, err := l.Key("host-setup"); err != nil || bytes.Equal(fresh, a) {
		t.Errorf("after DropKey: %v", err)
	}
}
