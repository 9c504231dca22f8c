package store

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// arrivals counts the calls that nobody has run yet.
func (t *turn) arrivals() (n int) {
	for c := t.arrived.Load(); c != nil; c = c.before {
		n++
	}
	return n
}

func waitFor(t *testing.T, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("it does not come to that")
			return
		}
	}
}

// A function that comes while another one runs is run by that one's caller, in its
// order; if it panics, so does its own caller, and nobody else notices.
func TestFunctionsThatComeMeanwhileAreRunByWhoIsAtIt(t *testing.T) {
	t.Parallel()
	s := newFixture(t).mustOpen(t)
	var order []string // state guards it
	call := func(name string, fn func()) (got any) {
		defer func() {
			if p, ok := recover().(*panicked); ok {
				got = p.value
			}
		}()
		err := s.Update(t.Context(), func(tx *Tx) error {
			order = append(order, name)
			fn()
			return tx.Bucket("b").Put([]byte(name), nil)
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return nil
	}
	var wg sync.WaitGroup
	come := func(i int, name string, fn func(), want any) {
		wg.Go(func() {
			if got := call(name, fn); got != want {
				t.Errorf("%s panicked with %v, want %v", name, got, want)
			}
		})
		waitFor(t, func() bool { return s.state.arrivals() == i })
	}
	call("first", func() {
		come(1, "second", func() {}, nil)
		come(2, "panics", func() { panic("fn") }, "fn")
		come(3, "last", func() {}, nil)
	})
	wg.Wait()
	if got := fmt.Sprint(order); got != "[first second panics last]" {
		t.Errorf("run were %s", got)
	}
	for key, want := range map[string]string{"first": "", "second": "", "panics": "<none>", "last": ""} {
		if got := get(t, s, "b", key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

// Who holds the lock for another reason runs what has come meanwhile, too.
func TestWhoUnlocksRunsWhatHasCome(t *testing.T) {
	t.Parallel()
	s := newFixture(t).mustOpen(t)
	s.state.Lock()
	done := make(chan struct{})
	go func() {
		put(t, s, "b", "k", "v")
		close(done)
	}()
	waitFor(t, func() bool { return s.state.arrivals() == 1 })
	s.state.Unlock()
	if n := s.state.arrivals(); n != 0 {
		t.Errorf("%d wait for a function to be run", n)
	}
	<-done
}

// Those for whom a commit has no room are in the next one.
func TestACommitHasRoomForSoMany(t *testing.T) {
	t.Parallel()
	s := newFixture(t).mustOpen(t)
	put(t, s, "b", "k", "v")
	s.writing.Lock()
	const callers = 2*maxBatch + maxBatch/2
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { put(t, s, "b", fmt.Sprintf("%04d", i), "v") })
	}
	waitFor(t, func() bool {
		s.state.Lock()
		defer s.state.Unlock()
		return len(s.batch.calls)+len(s.late) == callers
	})
	s.state.Lock()
	if len(s.batch.calls) != maxBatch {
		t.Errorf("%d are in one commit, want %d", len(s.batch.calls), maxBatch)
	}
	s.state.Unlock()
	s.writing.Unlock()
	wg.Wait()
	for i := range callers {
		if got := get(t, s, "b", fmt.Sprintf("%04d", i)); got != "v" {
			t.Fatalf("%04d is %q", i, got)
		}
	}
}

// Where a commit fails, those for whom it had no room are told of what becomes of them,
// too.
func TestNobodyIsForgottenWhereACommitFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	put(t, s, "b", "k", "v")
	restore := f.breakLog(t, s)
	s.writing.Lock()
	const callers = 3 * maxBatch
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			err := s.Update(t.Context(), func(tx *Tx) error { return tx.Bucket("b").Put(fmt.Append(nil, i), nil) })
			if !errors.Is(err, syscall.EBADF) {
				t.Errorf("%v, want that the log cannot be written", err)
			}
		})
	}
	waitFor(t, func() bool {
		s.state.Lock()
		defer s.state.Unlock()
		return len(s.batch.calls)+len(s.late) == callers
	})
	s.writing.Unlock()
	wg.Wait()
	restore()
	put(t, s, "b", "k", "after")
}
