package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// gather writes as a first start does: what comes after depends on what was before,
// and one update fails.
func gather(t *testing.T, s *Store, steps int) {
	t.Helper()
	refused := errors.New("refused")
	for i := range steps {
		if err := putStep(t.Context(), s, i); err != nil {
			t.Fatal(err)
		}
		err := s.Update(t.Context(), func(tx *Tx) error {
			if err := tx.Bucket("b").Put([]byte("undone"), []byte("x")); err != nil {
				return err
			}
			return refused
		})
		if !errors.Is(err, refused) {
			t.Fatal(err)
		}
		if got := gathered(t, s); got != i+1 {
			t.Fatalf("%d updates are there, want %d", got, i+1)
		}
	}
}

func putStep(ctx context.Context, s *Store, i int) error {
	return s.Update(ctx, func(tx *Tx) error {
		if err := tx.Bucket("b").Put([]byte("newest"), fmt.Append(nil, i)); err != nil {
			return err
		}
		return tx.Bucket("b").Put(fmt.Append(nil, "key ", i), make([]byte, 100))
	})
}

// gathered is how many updates of putStep are there, each of them whole.
func gathered(t *testing.T, s *Store) (n int) {
	t.Helper()
	err := s.View(t.Context(), func(tx *Tx) error {
		b := tx.Bucket("b")
		err := b.Range([]byte("key "), func(_, v []byte) error {
			if len(v) != 100 {
				t.Errorf("a value of %d bytes", len(v))
			}
			n++
			return nil
		})
		if err != nil {
			return err
		}
		newest, err := b.Get([]byte("newest"))
		if want := fmt.Sprint(n - 1); n > 0 && string(newest) != want {
			t.Errorf("the newest is %q, want %q", newest, want)
		}
		if undone, _ := b.Get([]byte("undone")); undone != nil {
			t.Errorf("a refused update left %q", undone)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// crash ends s, and leaves of it what a killed process would have.
func (f *fixture) crash(t *testing.T, s *Store) {
	t.Helper()
	at := f.counter.at()
	state, err := os.ReadFile(filepath.Join(f.dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.counter = &memCounter{value: at}
	if err := os.WriteFile(filepath.Join(f.dir, fileName), state, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A new store is as new as it was whenever its maker is killed before Settle, and
// has everything after. The device hears of nothing before.
func TestWhatIsGatheredIsOneCommit(t *testing.T) {
	t.Parallel()
	for _, cold := range [][]Keys{nil, {{Bucket: "b", Prefix: "key "}}} {
		for steps := range 6 {
			f := newFixture(t)
			f.cold, f.gather = cold, true
			s := f.mustOpen(t)
			gather(t, s, steps)
			f.crash(t, s)
			if at := f.counter.at(); at != 0 {
				t.Errorf("after %d updates the device knows commit %d", steps, at)
			}

			s = f.mustOpen(t)
			if got := gathered(t, s); got != 0 {
				t.Errorf("%d of %d updates outlived the crash before they were settled", got, steps)
			}
			gather(t, s, steps)
			if err := s.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := gathered(t, s); got != steps {
				t.Errorf("settled, %d of %d updates are there", got, steps)
			}
			f.crash(t, s)

			s = f.mustOpen(t)
			if got := gathered(t, s); got != steps {
				t.Errorf("%d of %d updates outlived the crash after they were settled", got, steps)
			}
			if want := uint64(min(steps, 1)); s.seq != want {
				t.Errorf("%d updates were %d commits", steps, s.seq)
			}
			if err := putStep(t.Context(), s, steps); err != nil { // gathered no more, or not yet
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestClosedBeforeItIsSettledAStoreIsNew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gather = true
	s := f.mustOpen(t)
	gather(t, s, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.mustOpen(t)
	defer s.Close()
	if got := gathered(t, s); got != 0 || f.counter.at() != 0 {
		t.Errorf("%d updates, device at %d", got, f.counter.at())
	}
}

func TestSettleWaitsForNoReader(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.gather = true
	s := f.mustOpen(t)
	defer s.Close()
	gather(t, s, 1)
	err := s.View(t.Context(), func(*Tx) error { return s.Settle(t.Context()) })
	if !errkind.Is(err, errkind.Internal) {
		t.Errorf("settled under a reader: %v", err)
	}
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := gathered(t, s); got != 1 {
		t.Errorf("%d updates", got)
	}
}

// Wherever a power cut ends the commit of what was gathered, all of it is there or
// nothing.
func TestAPowerCutInSettle(t *testing.T) {
	t.Parallel()
	const steps = 4
	f := newFixture(t)
	f.gather = true
	s := f.mustOpen(t)
	gather(t, s, steps)
	begin := s.log.end
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	end := s.log.end
	f.crash(t, s)
	whole, err := os.ReadFile(filepath.Join(f.dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(51) {
		cut := begin + (end-begin)*i/50
		torn := append(append([]byte(nil), whole[:cut]...), make([]byte, int64(len(whole))-cut)...)
		if err := os.WriteFile(filepath.Join(f.dir, fileName), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		f.counter = &memCounter{}
		s := f.mustOpen(t)
		want := 0
		if cut == end {
			want = steps
		}
		if got := gathered(t, s); got != want {
			t.Errorf("cut %d bytes into %d: %d updates", cut-begin, end-begin, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
