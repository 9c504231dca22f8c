package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func (f *fixture) file() string { return filepath.Join(f.dir, fileName) }

func (f *fixture) copy(t *testing.T) []byte {
	t.Helper()
	p, err := os.ReadFile(f.file())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (f *fixture) restore(t *testing.T, p []byte) {
	t.Helper()
	if err := os.WriteFile(f.file(), p, 0o600); err != nil {
		t.Fatal(err)
	}
}

// life opens the store, puts a value and closes it.
func (f *fixture) life(t *testing.T, value string) {
	t.Helper()
	s := f.mustOpen(t)
	put(t, s, "b", "k", value)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) mustRefuse(t *testing.T, text string) {
	t.Helper()
	if _, err := f.open(t); !errkind.Is(err, errkind.Integrity) || !strings.Contains(err.Error(), text) {
		t.Errorf("open: %v, want an integrity error about %q", err, text)
	}
}

func TestAnOldCopyIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.life(t, "old")
	old := f.copy(t)
	f.life(t, "new")
	newest := f.copy(t)
	f.restore(t, old)
	f.mustRefuse(t, "rolled back")
	f.restore(t, newest) // what the message asks for
	if got := get(t, f.mustOpen(t), "b", "k"); got != "new" {
		t.Errorf("k = %q", got)
	}
}

func TestAMissingStoreIsRefusedOnceItWasUsed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.life(t, "v")
	if err := os.Remove(f.file()); err != nil {
		t.Fatal(err)
	}
	f.mustRefuse(t, "missing")
	if err := os.WriteFile(f.file(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.mustRefuse(t, "no header")
	f.restore(t, []byte(strings.Repeat("garbage ", 4096)))
	f.mustRefuse(t, "")
}

func TestAnotherKeyIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.life(t, "v")
	f.key = []byte("another partition's key, as long")
	f.mustRefuse(t, "not the one")
}

// Whoever writes to the disk can take back single values, in a file that is
// otherwise the newest one.
func TestChangedFilesAreRefused(t *testing.T) {
	t.Parallel()
	edit := func(t *testing.T, f *fixture, fn func(tx *bolt.Tx) error) {
		t.Helper()
		db, err := bolt.Open(f.file(), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(fn), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	var box []byte
	take := func(tx *bolt.Tx) error {
		box = append([]byte(nil), tx.Bucket([]byte("b")).Get([]byte("k"))...)
		return nil
	}
	for name, change := range map[string]func(tx *bolt.Tx) error{
		"older value":  func(tx *bolt.Tx) error { return tx.Bucket([]byte("b")).Put([]byte("k"), box) },
		"moved value":  func(tx *bolt.Tx) error { return tx.Bucket([]byte("b")).Put([]byte("other"), box) },
		"lost value":   func(tx *bolt.Tx) error { return tx.Bucket([]byte("b")).Delete([]byte("k")) },
		"lost bucket":  func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("b")) },
		"plain value":  func(tx *bolt.Tx) error { return tx.Bucket([]byte("b")).Put([]byte("k"), []byte("plain")) },
		"lost header":  func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte(headBucket)) },
		"wrong header": func(tx *bolt.Tx) error { return tx.Bucket([]byte(headBucket)).Put([]byte(headKey), box) },
	} {
		f := newFixture(t)
		f.life(t, "old")
		edit(t, f, take)
		f.life(t, "new")
		edit(t, f, func(*bolt.Tx) error { return nil }) // the editing itself is not what is refused
		if s, err := f.open(t); err != nil {
			t.Fatal(err)
		} else if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		edit(t, f, change)
		if _, err := f.open(t); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The window that the package comment states: what was the newest state less
// than RaiseEvery before the end passes for the newest.
func TestTheUndetectedWindowIsAsDocumented(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	put(t, s, "b", "k", "1")
	early := f.copy(t)
	put(t, s, "b", "k", "2")
	for deadline := time.Now().Add(10 * time.Second); f.counter.at() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the counter was not raised")
		}
	}
	before, after := newFixture(t), newFixture(t)
	before.restore(t, early)
	before.counter.value = 1 // as a crash less than RaiseEvery after the second commit leaves it
	if got := get(t, before.mustOpen(t), "b", "k"); got != "1" {
		t.Errorf("k = %q", got)
	}
	after.restore(t, early)
	after.counter.value = f.counter.at()
	after.mustRefuse(t, "rolled back")
}

func TestTheCounterFollowsTheCommits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s := f.mustOpen(t)
		calls := f.counter.calls
		for range 50 {
			put(t, s, "b", "k", "v")
		}
		time.Sleep(2 * RaiseEvery)
		synctest.Wait()
		if at := f.counter.at(); at != 50 {
			t.Errorf("counter at %d after 50 commits", at)
		}
		if n := f.counter.calls - calls; n > 2 {
			t.Errorf("%d raises for commits of one moment", n)
		}
		calls = f.counter.calls
		time.Sleep(time.Hour)
		if f.counter.calls != calls {
			t.Error("an idle store raises the counter")
		}
		put(t, s, "b", "k", "v")
		if err := s.Close(); err != nil || f.counter.at() != 51 {
			t.Errorf("counter at %d after Close, %v", f.counter.at(), err)
		}
	})
}

func TestWithoutTheCounterUpdatesEndInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s := f.mustOpen(t)
		f.counter.set(errkind.Errorf(errkind.Unavailable, "no module"))
		put(t, s, "b", "k", "1")
		time.Sleep(MaxUnraised / 2)
		put(t, s, "b", "k", "2")
		time.Sleep(MaxUnraised/2 + time.Second)
		err := s.Update(t.Context(), func(tx *Tx) error { return tx.Bucket("b").Put([]byte("k"), []byte("3")) })
		if !errkind.Is(err, errkind.Unavailable) {
			t.Errorf("update without the counter: %v", err)
		}
		if got := get(t, s, "b", "k"); got != "2" {
			t.Errorf("k = %q", got)
		}
		f.counter.set(nil)
		time.Sleep(time.Second)
		put(t, s, "b", "k", "3")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherProcessOfThePartitionIsNoticed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	put(t, s, "b", "k", "1")
	f.counter.mu.Lock()
	f.counter.value = 100
	f.counter.mu.Unlock()
	if err := s.Close(); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("close: %v", err)
	}
}
