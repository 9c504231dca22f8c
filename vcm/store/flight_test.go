package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// A function goes on from what the commit before has written, also while that is on
// its way to the disk and no longer in memory.
func TestFunctionsGoOnFromWhatIsInFlight(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.cold = []Keys{{Bucket: "cold"}}
	s := f.mustOpen(t)
	const callers, each = 32, 40
	padding := bytes.Repeat([]byte("."), coldSize)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				err := s.Update(t.Context(), func(tx *Tx) error {
					b := tx.Bucket("cold")
					v, err := b.Get([]byte("n"))
					if err != nil {
						return err
					}
					n, _ := strconv.Atoi(string(bytes.TrimRight(v, ".")))
					return b.Put([]byte("n"), append(strconv.AppendInt(nil, int64(n+1), 10), padding...))
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := get(t, s, "cold", "n"), strconv.Itoa(callers*each)+string(padding); got != want {
		t.Errorf("after %d updates the value is %.10s", callers*each, got)
	}
}

// joined runs fn without waiting for its commit, which end does.
func joined(t *testing.T, s *Store, fn func(*Tx) error) (end func() error) {
	t.Helper()
	c := &call{ctx: t.Context(), fn: fn, wake: make(chan struct{}, 1)}
	s.state.leave(c)
	s.state.Lock()
	leads := c.leads
	s.state.Unlock()
	if leads {
		<-c.wake
		go s.lead()
	}
	return func() error { <-c.wake; return c.err }
}

// Readers see neither what a batch has nor what is in flight, and where another log
// is taken meanwhile, what they see instead is read from that.
func TestReadersSeeWhatAnOpenBatchReplaced(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.cold = []Keys{{Bucket: "cold"}}
	s := f.mustOpen(t)
	old := bytes.Repeat([]byte("old "), coldSize)
	for _, k := range []string{"changed", "deleted", "kept"} {
		put(t, s, "cold", k, string(old))
	}
	s.writing.Lock()
	unlock := sync.OnceFunc(s.writing.Unlock)
	defer unlock()
	end := joined(t, s, func(tx *Tx) error {
		b := tx.Bucket("cold")
		return errors.Join(b.Put([]byte("changed"), bytes.Repeat([]byte("new "), coldSize)), b.Delete([]byte("deleted")))
	})
	c, err := s.beginCopy()
	if err == nil {
		err = c.finish()
	}
	if err == nil {
		err = s.moveTo(c.to, c.places)
	}
	if err = c.leave(err); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"changed", "deleted", "kept"} {
		if got := get(t, s, "cold", k); got != string(old) {
			t.Errorf("%s is %.10q before its commit", k, got)
		}
	}
	unlock()
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, "cold", "deleted"); got != "<none>" {
		t.Errorf("deleted, it is %.10q", got)
	}
	if got := get(t, s, "cold", "changed"); got[:3] != "new" {
		t.Errorf("changed, it is %.10q", got)
	}
}

// breakLog gives s a log that cannot grow, until restore is called.
func (f *fixture) breakLog(t *testing.T, s *Store) (restore func()) {
	t.Helper()
	readOnly, err := os.Open(filepath.Join(f.dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { readOnly.Close() })
	s.writing.Lock()
	defer s.writing.Unlock()
	good, size := s.log.f, s.log.size
	s.log.f, s.log.size = readOnly, s.log.end
	return func() {
		s.writing.Lock()
		defer s.writing.Unlock()
		s.log.f, s.log.size = good, size
	}
}

// Where a commit cannot be written, those who went on from it fail with it, and
// nothing of either remains. A function that failed on its own says why.
func TestWhatCameDuringAFailedCommitFailsWithIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	put(t, s, "b", "k", "before")

	restore := f.breakLog(t, s)
	refused := errors.New("refused")
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 50 {
				err := s.Update(t.Context(), func(tx *Tx) error {
					if i%8 == 0 {
						return refused
					}
					return errors.Join(tx.Bucket("b").Put([]byte("k"), fmt.Append(nil, i)), tx.Bucket("b").Put(fmt.Append(nil, "key ", i), nil))
				})
				switch {
				case i%8 == 0 && !errors.Is(err, refused):
					t.Errorf("%v, want the function's error", err)
				case i%8 != 0 && !errors.Is(err, syscall.EBADF):
					t.Errorf("%v, want that the log cannot be written", err)
				}
			}
		})
	}
	wg.Wait()
	restore()
	put(t, s, "b", "after", "v")
	if got := get(t, s, "b", "k"); got != "before" {
		t.Errorf("it is %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := f.mustOpen(t)
	n := 0
	err := again.View(t.Context(), func(tx *Tx) error {
		return tx.Bucket("b").Range(nil, func(_, _ []byte) error { n++; return nil })
	})
	if err != nil || n != 2 {
		t.Errorf("%d keys are there, %v", n, err)
	}
}
