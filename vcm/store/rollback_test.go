package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// span is where a record is in its file.
type span struct{ from, to int }

// spans takes a file apart.
func spans(t *testing.T, file []byte) (out []span) {
	t.Helper()
	for at := headSize; ; {
		h, ok := parseRecordHeader(file[at:])
		if !ok {
			break
		}
		out = append(out, span{at, at + recordHead + int(h.length)})
		at = out[len(out)-1].to
	}
	return out
}

// Whoever writes to the disk can change, move, repeat and leave out records, in
// a file that is otherwise the newest one.
func TestChangedFilesAreRefused(t *testing.T) {
	t.Parallel()
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	type edit func(file, other []byte, s []span) []byte
	flip := func(at func(s []span) int) edit {
		return func(file, _ []byte, s []span) []byte {
			file[at(s)] ^= 1
			return file
		}
	}
	for name, change := range map[string]edit{
		"lost commit":     func(f, _ []byte, s []span) []byte { return join(f[:s[2].from], f[s[3].from:]) },
		"repeated commit": func(f, _ []byte, s []span) []byte { return join(f[:s[2].to], f[s[2].from:]) },
		"exchanged commits": func(f, _ []byte, s []span) []byte {
			return join(f[:s[2].from], f[s[3].from:s[3].to], f[s[2].from:s[2].to], f[s[4].from:])
		},
		"older commit": func(f, _ []byte, s []span) []byte {
			return join(f[:s[4].from], f[s[2].from:s[2].to], f[s[4].to:])
		},
		"commit of another file": func(f, other []byte, s []span) []byte {
			copy(f[s[3].from:s[3].to], other[s[3].from:s[3].to])
			return f
		},
		"end of another file":  func(f, other []byte, s []span) []byte { return join(f[:s[3].from], other[s[3].from:]) },
		"newest commit lost":   func(f, _ []byte, s []span) []byte { return f[:s[len(s)-1].from] },
		"newest commit zeroed": func(f, _ []byte, s []span) []byte { clear(f[s[len(s)-1].from:]); return f },
		"middle zeroed":        func(f, _ []byte, s []span) []byte { clear(f[s[2].from:s[2].to]); return f },
		"plain text":           func(f, _ []byte, s []span) []byte { copy(f[s[2].from+recordHead:], "plain"); return f },
		"first commit":         flip(func(s []span) int { return s[0].from + recordHead + 3 }),
		"length":               flip(func(s []span) int { return s[2].from + 7 }),
		"commit number":        flip(func(s []span) int { return s[2].from + 15 }),
		"index":                flip(func(s []span) int { return s[2].from + 19 }),
		"tag before":           flip(func(s []span) int { return s[2].from + 20 }),
		"nonce":                flip(func(s []span) int { return s[2].from + recordHead + 1 }),
		"text":                 flip(func(s []span) int { return s[2].from + recordHead + 30 }),
		"tag":                  flip(func(s []span) int { return s[2].to - 1 }),
		"newest commit":        flip(func(s []span) int { return s[len(s)-1].to - 1 }),
		"file's id":            flip(func([]span) int { return headSize - 1 }),
		"file's magic":         flip(func([]span) int { return 0 }),
		"key's commitment":     flip(func([]span) int { return len(fileMagic) }),
	} {
		f, other := newFixture(t), newFixture(t)
		for _, f := range []*fixture{f, other} {
			s := f.mustOpen(t)
			for i := range 6 {
				put(t, s, "b", "k", strings.Repeat("v", 40+i/5)) // the same lengths in both
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		file := f.copy(t)
		f.mustOpen(t).Close() // the reopening itself is not what is refused
		f.restore(t, change(file, other.copy(t), spans(t, file)))
		if _, err := f.open(t); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A value that stays in the log is checked each time it is read.
func TestAColdValueChangedUnderTheStoreIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.cold = []Keys{{Bucket: "b"}}
	s := f.mustOpen(t)
	put(t, s, "b", "k", strings.Repeat("v", 2*coldSize))
	file := f.copy(t)
	last := spans(t, file)
	file[last[len(last)-1].to-1] ^= 1
	f.restore(t, file)
	err := s.View(t.Context(), func(tx *Tx) error { _, err := tx.Bucket("b").Get([]byte("k")); return err })
	if !errkind.Is(err, errkind.Integrity) {
		t.Errorf("Get: %v", err)
	}
}

// An unfinished commit was never acknowledged: it is removed, wherever the
// crash cut it, and never taken for a whole one.
func TestAnUnfinishedCommitIsRemoved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	put(t, s, "b", "k", "1")
	at := f.counter.at()
	err := s.Update(t.Context(), func(tx *Tx) error { // some records
		for i := range 40 {
			if err := tx.Bucket("b").Put(fmt.Appendf(nil, "%02d", i), make([]byte, 1000)); err != nil {
				return err
			}
		}
		return tx.Bucket("b").Put([]byte("k"), []byte("2"))
	})
	if err != nil {
		t.Fatal(err)
	}
	whole := f.copy(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all := spans(t, whole)
	first, last := all[2], all[len(all)-1]
	if len(all) < 5 {
		t.Fatalf("the commit has only %d records", len(all)-2)
	}
	garble := func(p []byte) []byte {
		for i := range p {
			p[i] = byte(i)
		}
		return p
	}
	for name, torn := range map[string][]byte{
		"cut after a byte":     whole[:first.from+1],
		"cut in the header":    whole[:first.from+recordHead-1],
		"cut in a record":      whole[:first.to-1],
		"cut between records":  whole[:first.to],
		"cut before the end":   whole[:last.to-1],
		"middle not written":   slices.Concat(whole[:first.to], make([]byte, 4096), whole[first.to+4096:]),
		"begin not written":    slices.Concat(whole[:first.from], make([]byte, first.to-first.from), whole[first.to:]),
		"garbage in its place": slices.Concat(whole[:first.from], garble(make([]byte, 9000))),
	} {
		f.restore(t, torn)
		f.counter.mu.Lock()
		f.counter.value = at
		f.counter.mu.Unlock()
		s, err := f.open(t)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if k, other := get(t, s, "b", "k"), get(t, s, "b", "07"); k != "1" || other != "<none>" {
			t.Errorf("%s: k = %q, another is %q", name, k, other)
		}
		put(t, s, "b", "k", "3")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = f.mustOpen(t)
		if got := get(t, s, "b", "k"); got != "3" {
			t.Errorf("%s, written again: k = %q", name, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
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
	waitFor(t, func() bool { return f.counter.at() >= 2 })
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
