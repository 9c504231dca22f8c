package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Values are overwritten many times over the quota: the log stays small, and
// readers of any age see what belongs together.
func TestCompactionBoundsTheLogAndDisturbsNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.quota, f.cold = 2<<20, []Keys{{Bucket: "cold"}}
	s := f.mustOpen(t)
	const keys, rounds = 200, 60
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := s.View(t.Context(), func(tx *Tx) error {
					seen := map[string]string{}
					for _, name := range []string{"warm", "cold"} {
						err := tx.Bucket(name).Range(nil, func(k, v []byte) error {
							if other, ok := seen[string(k)]; ok && other != string(v) {
								t.Errorf("key %s has values of two commits", k)
							}
							seen[string(k)] = string(v)
							return nil
						})
						if err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	value := func(round, key int) []byte { return []byte(strings.Repeat(fmt.Sprintf("%d/%d ", round, key), 100)) }
	files := map[uint64]bool{}
	for round := range rounds {
		for from := 0; from < keys; from += 20 {
			err := s.Update(t.Context(), func(tx *Tx) error {
				for key := from; key < from+20; key++ {
					for _, name := range []string{"warm", "cold"} {
						if err := tx.Bucket(name).Put(fmt.Appendf(nil, "%03d", key), value(round, key)); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{fileName, otherName} {
				st, err := os.Stat(filepath.Join(f.dir, name))
				if err != nil || st.Size() > f.quota+f.quota/4 {
					t.Fatalf("%s has %d bytes with a quota of %d, %v", name, st.Size(), f.quota, err)
				}
			}
		}
		s.state.Lock()
		files[uint64(s.log.id[0])<<8|uint64(s.log.id[1])] = true
		s.state.Unlock()
	}
	close(stop)
	wg.Wait()
	if len(files) < 5 {
		t.Errorf("%d bytes were written into %d files", rounds*keys*2*600, len(files))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.mustOpen(t)
	for _, name := range []string{"warm", "cold"} {
		for key := range keys {
			if got := get(t, s, name, fmt.Sprintf("%03d", key)); got != string(value(rounds-1, key)) {
				t.Fatalf("%s/%03d = %.20q", name, key, got)
			}
		}
	}
}

// Updates go on while the state is copied; what they change, delete and take back
// meanwhile is in the copy.
func TestUpdatesGoOnDuringACompaction(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.quota, f.cold = 64<<20, []Keys{{Bucket: "cold"}}
	s := f.mustOpen(t)
	const clients, keys = 4, 2000
	name := func(client, key int) []byte { return fmt.Appendf(nil, "%d/%04d", client, key) }
	want := make([]map[string]string, clients) // each client's own
	write := func(client, key, round int) error {
		k, undone := name(client, key), errors.New("undone")
		err := s.Update(t.Context(), func(tx *Tx) error {
			for _, b := range []*Bucket{tx.Bucket("warm"), tx.Bucket("cold")} {
				if round%7 == 3 {
					if err := b.Delete(k); err != nil {
						return err
					}
				} else if err := b.Put(k, fmt.Appendf(nil, "%d %0300d", round, key)); err != nil {
					return err
				}
			}
			if round%5 == 4 {
				return undone
			}
			return nil
		})
		switch {
		case errors.Is(err, undone):
			return nil
		case err == nil && round%7 == 3:
			delete(want[client], string(k))
		case err == nil:
			want[client][string(k)] = fmt.Sprintf("%d %0300d", round, key)
		}
		return err
	}
	var wg sync.WaitGroup
	for c := range clients {
		want[c] = map[string]string{}
		wg.Go(func() {
			for key := range keys {
				if err := write(c, key, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	stop := make(chan struct{})
	for c := range clients {
		wg.Go(func() {
			for round := 1; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := write(c, round*37%keys, round); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	const compactions = 6
	shared := 0
	for range compactions {
		before := s.at()
		if err := s.rewrite(); err != nil {
			t.Fatal(err)
		}
		if s.at() > before+2 {
			shared++
		}
	}
	close(stop)
	wg.Wait()
	if shared < compactions/2 {
		t.Errorf("there were commits beside %d of %d compactions only", shared, compactions)
	}
	check := func(what string) {
		for _, b := range []string{"warm", "cold"} {
			for c := range clients {
				for key := range keys {
					k := string(name(c, key))
					if got, want := get(t, s, b, k), cmp.Or(want[c][k], "<none>"); got != want {
						t.Fatalf("%s: %s/%s = %.10q, want %.10q", what, b, k, got, want)
					}
				}
			}
		}
	}
	check("at once")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.mustOpen(t)
	check("opened again")
}

// at is the number of the newest commit.
func (s *Store) at() uint64 {
	s.state.Lock()
	defer s.state.Unlock()
	return s.seq
}

// A crash in a compaction leaves the old log in place, and the new one beside it.
func TestAnUnfinishedCompactionIsRemoved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.life(t, "v")
	unfinished := filepath.Join(f.dir, otherName)
	if err := os.WriteFile(unfinished, f.copy(t)[:80], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := get(t, f.mustOpen(t), "b", "k"); got != "v" {
		t.Errorf("k = %q", got)
	}
	if st, err := os.Stat(unfinished); err != nil || st.Size() > 0 {
		t.Errorf("the unfinished log is still there: %v", err)
	}
}

// A log from before a compaction is an old copy like any other.
func TestTheLogFromBeforeACompactionIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	put(t, s, "b", "k", "1")
	before := f.copy(t)
	s.compact() // nobody else uses the store
	put(t, s, "b", "k", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after := f.copyOther(t)
	f.restoreBoth(t, before, nil)
	f.mustRefuse(t, "rolled back")
	// Nor does its end fit to the new one.
	f.restore(t, append(after[:spans(t, after)[0].to:spans(t, after)[0].to], before[spans(t, before)[1].from:]...))
	f.mustRefuse(t, "")
}

func (f *fixture) copyOther(t *testing.T) []byte {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(f.dir, otherName))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (f *fixture) restoreBoth(t *testing.T, first, other []byte) {
	t.Helper()
	f.restore(t, first)
	if err := os.WriteFile(filepath.Join(f.dir, otherName), other, 0o600); err != nil {
		t.Fatal(err)
	}
}

func damaged(file []byte, at int) []byte {
	file = bytes.Clone(file)
	file[at] ^= 1
	return file
}

// Wherever a crash ends a compaction, the state is found, in whichever file.
func TestTheStateIsFoundInEitherFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	put(t, s, "b", "k", "1")
	before := f.copy(t)
	s.compact() // nobody else uses the store
	put(t, s, "b", "k", "x")
	put(t, s, "b", "k", "2")
	after := f.copyOther(t)
	if first := f.copy(t); len(first) > 0 {
		t.Errorf("the log from before still has %d bytes", len(first))
	}
	s.compact()
	again := f.copy(t) // of the same commit as after
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	end := spans(t, after)
	for _, tc := range []struct {
		what         string
		first, other []byte
	}{
		{"emptied", nil, after},
		{"not emptied yet", before, after},
		{"the other way round", after, nil},
		{"the other way round, not emptied yet", after, before},
		{"beside one without a head", after, before[:40]},
		{"beside one without a first commit", after, before[:100]},
		{"without a head beside it", before[:40], after},
		{"without a first commit beside it", before[:100], after},
		{"beside the next one", after, again},
		{"of an unfinished commit", before, append(after[:end[len(end)-1].to:end[len(end)-1].to], "unfinished"...)},
		{"beside the same once again", after, after},
	} {
		f.restoreBoth(t, tc.first, tc.other)
		s := f.mustOpen(t)
		if got := get(t, s, "b", "k"); got != "2" {
			t.Errorf("%s: k = %q", tc.what, got)
		}
		s.compact()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if a, b := f.copy(t), f.copyOther(t); (len(a) == 0) == (len(b) == 0) {
			t.Errorf("%s: %d and %d bytes are left", tc.what, len(a), len(b))
		}
		s = f.mustOpen(t)
		if got := get(t, s, "b", "k"); got != "2" {
			t.Errorf("%s, opened again: k = %q", tc.what, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Both from before: rolled back all the same. What is there is not touched.
	for _, tc := range []struct {
		what, text   string
		first, other []byte
	}{
		{"both old", "rolled back", before, before},
		{"old and empty", "rolled back", before, nil},
		{"empty and old", "rolled back", nil, before},
		{"both empty", "no header", nil, nil},
		{"both unfinished", "first commit", before[:100], after[:100]},
		{"a damaged one beside an old one", "damaged", before, damaged(after, end[1].to-1)},
		{"a damaged one beside none", "first commit", nil, damaged(after, end[0].to-1)},
	} {
		f.restoreBoth(t, tc.first, tc.other)
		f.mustRefuse(t, tc.text)
		if !bytes.Equal(f.copy(t), tc.first) || !bytes.Equal(f.copyOther(t), tc.other) {
			t.Errorf("%s: the files were changed", tc.what)
		}
	}
}
