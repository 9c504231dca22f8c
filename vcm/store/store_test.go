package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// memCounter is a device's counter in memory.
type memCounter struct {
	mu    sync.Mutex
	value uint64
	calls int
	fail  error
}

func (c *memCounter) Raise(_ context.Context, v uint64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if c.fail != nil {
		return 0, c.fail
	}
	c.value = max(c.value, v)
	return c.value, nil
}

func (c *memCounter) set(fail error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

func (c *memCounter) at() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

var testKey = []byte("partition key of the store tests")

type fixture struct {
	dir     string
	counter *memCounter
	key     []byte
	quota   int64
	cold    []Keys
	gather  bool
	log     *slog.Logger
}

func newFixture(t testing.TB) *fixture {
	return &fixture{dir: t.TempDir(), counter: &memCounter{}, key: testKey, quota: 16 << 20, log: quiet()}
}

func (f *fixture) open(t testing.TB) (*Store, error) {
	t.Helper()
	dir, err := os.Open(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	s, err := Open(t.Context(), Config{Dir: dir, Key: f.key, Counter: f.counter, Quota: f.quota, Cold: f.cold, Gather: f.gather, Log: f.log})
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func (f *fixture) mustOpen(t testing.TB) *Store {
	t.Helper()
	s, err := f.open(t)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Store, bucket, key, value string) {
	t.Helper()
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.Bucket(bucket).Put([]byte(key), []byte(value)) })
	if err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, s *Store, bucket, key string) string {
	t.Helper()
	out := "<none>"
	err := s.View(t.Context(), func(tx *Tx) error {
		v, err := tx.Bucket(bucket).Get([]byte(key))
		if v != nil {
			out = string(v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestValuesSurviveAReopening(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	put(t, s, "meters", "a", "1")
	put(t, s, "meters", "empty", "")
	put(t, s, "users", "a", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.mustOpen(t)
	for _, c := range []struct{ bucket, key, want string }{
		{"meters", "a", "1"}, {"meters", "empty", ""}, {"users", "a", "2"}, {"users", "b", "<none>"}, {"none", "a", "<none>"},
	} {
		if got := get(t, s, c.bucket, c.key); got != c.want {
			t.Errorf("%s/%s = %q, want %q", c.bucket, c.key, got, c.want)
		}
	}
}

// Records of every size are read back, alone and several to a commit, wherever
// the pieces end in which a log is read.
func TestRecordsOfEverySizeSurviveAReopening(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	sizes := []int{0, 1, 100, chunk - 100, chunk, aheadSize - recordHead, aheadSize, 3*aheadSize + 1, MaxValue}
	want := map[string]string{}
	for i, size := range sizes {
		key := fmt.Sprint("alone ", size)
		want[key] = strings.Repeat(string(rune('a'+i)), size)
		put(t, s, "b", key, want[key])
	}
	err := s.Update(t.Context(), func(tx *Tx) error {
		for i, size := range sizes {
			key := fmt.Sprint("together ", size)
			want[key] = strings.Repeat(string(rune('A'+i)), size)
			if err := tx.Bucket("b").Put([]byte(key), []byte(want[key])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.mustOpen(t)
	for key, value := range want {
		if got := get(t, s, "b", key); got != value {
			t.Errorf("%s: %d bytes that begin with %.10q", key, len(got), got)
		}
	}
}

func TestAFailingUpdateIsUndoneAlone(t *testing.T) {
	t.Parallel()
	s := newFixture(t).mustOpen(t)
	wrong := errors.New("wrong")
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			err := s.Update(t.Context(), func(tx *Tx) error {
				b := tx.Bucket("b")
				if err := b.Put(fmt.Appendf(nil, "own-%02d", i), []byte("x")); err != nil {
					return err
				}
				n, err := b.Get([]byte("count"))
				if err != nil {
					return err
				}
				if err := b.Put([]byte("count"), append(n, 'i')); err != nil {
					return err
				}
				if i%2 == 1 {
					return wrong
				}
				return nil
			})
			if (i%2 == 1) != errors.Is(err, wrong) {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if got := get(t, s, "b", "count"); len(got) != 32 {
		t.Errorf("count is %d, want 32", len(got))
	}
	for i := range 64 {
		want := "x"
		if i%2 == 1 {
			want = "<none>"
		}
		if got := get(t, s, "b", fmt.Sprintf("own-%02d", i)); got != want {
			t.Errorf("own-%02d = %q, want %q", i, got, want)
		}
	}
}

func TestAPanicStaysWithItsCaller(t *testing.T) {
	t.Parallel()
	s := newFixture(t).mustOpen(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was lost")
			}
		}()
		_ = s.Update(t.Context(), func(tx *Tx) error {
			_ = tx.Bucket("b").Put([]byte("k"), nil)
			panic("fn")
		})
	}()
	if got := get(t, s, "b", "k"); got != "<none>" {
		t.Errorf("k = %q after the panic", got)
	}
	put(t, s, "b", "k", "v") // the store goes on
}

func TestConcurrentUpdatesShareCommits(t *testing.T) {
	t.Parallel()
	s := newFixture(t).mustOpen(t)
	const callers, each = 32, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				put(t, s, "b", fmt.Sprintf("%d-%d", c, i), "x")
			}
		})
	}
	wg.Wait()
	s.state.Lock()
	commits := s.seq
	s.state.Unlock()
	if commits >= callers*each/2 {
		t.Errorf("%d updates needed %d commits", callers*each, commits)
	}
}

func TestUpdateHonoursItsContextBeforeItBegins(t *testing.T) {
	t.Parallel()
	s := newFixture(t).mustOpen(t)
	entered, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Update(t.Context(), func(*Tx) error { close(entered); <-release; return nil })
	})
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	context.AfterFunc(ctx, func() { close(release) }) // it waits for the one that runs
	ran := false
	err := s.Update(ctx, func(*Tx) error { ran = true; return nil })
	wg.Wait()
	put(t, s, "b", "k", "v")
	if !errkind.Is(err, errkind.Unavailable) || ran {
		t.Errorf("err = %v, ran = %v", err, ran)
	}
}

func TestMisuseIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	var kept *Bucket
	cases := map[string]error{
		"write in a view":       s.View(t.Context(), func(tx *Tx) error { return tx.Bucket("b").Put([]byte("k"), nil) }),
		"bucket without a name": s.Update(t.Context(), func(tx *Tx) error { return tx.Bucket("").Put([]byte("k"), nil) }),
		"empty key":             s.Update(t.Context(), func(tx *Tx) error { return tx.Bucket("b").Put(nil, nil) }),
		"long key":              s.Update(t.Context(), func(tx *Tx) error { return tx.Bucket("b").Put(make([]byte, MaxKey+1), nil) }),
		"long value": s.Update(t.Context(), func(tx *Tx) error {
			return tx.Bucket("b").Put([]byte("k"), make([]byte, MaxValue+1))
		}),
		"after its transaction": func() error {
			_ = s.Update(t.Context(), func(tx *Tx) error { kept = tx.Bucket("b"); return nil })
			return kept.Put([]byte("k"), nil)
		}(),
	}
	for name, err := range cases {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(*Tx) error { return nil }); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("update after Close: %v", err)
	}
	if err := s.View(t.Context(), func(*Tx) error { return nil }); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("view after Close: %v", err)
	}
	f.quota = MinQuota - 1
	if _, err := f.open(t); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("tiny quota: %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.mustOpen(t)
	if _, err := f.open(t); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("second open: %v", err)
	}
}

func TestNothingOutsideTheDirectoryIsOpened(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	outside := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(f.dir, fileName)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.open(t); err == nil {
		t.Fatal("the store followed a symbolic link")
	}
	if p, err := os.ReadFile(outside); err != nil || len(p) != 0 {
		t.Errorf("the link's target was written: %d bytes, %v", len(p), err)
	}
}
