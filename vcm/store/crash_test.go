package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// childEnv makes the test binary a writer that is killed or runs out of disk.
const childEnv = "TESSERAE_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "write":
		fatal(writeUntilKilled(os.Args[1]))
	case "full":
		fatal(writeUntilFull(os.Args[1]))
	}
	os.Exit(m.Run())
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fileCounter is a counter that survives the process, as the device's does.
type fileCounter struct{ f *os.File }

func (c fileCounter) Raise(_ context.Context, v uint64) (uint64, error) {
	var p [8]byte
	if _, err := c.f.ReadAt(p[:], 0); err != nil {
		binary.BigEndian.PutUint64(p[:], 0)
	}
	now := max(v, binary.BigEndian.Uint64(p[:]))
	binary.BigEndian.PutUint64(p[:], now)
	_, err := c.f.WriteAt(p[:], 0)
	return now, err
}

func openAt(ctx context.Context, dir string) (*Store, error) {
	f, err := os.OpenFile(filepath.Join(dir, "counter"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	data, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return Open(ctx, Config{Dir: data, Key: testKey, Counter: fileCounter{f}, Quota: 16 << 20, Log: quiet()})
}

// writeUntilKilled writes from several goroutines and prints each update that
// was acknowledged.
func writeUntilKilled(dir string) error {
	s, err := openAt(context.Background(), dir)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	run := time.Now().UnixNano()
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d-%d-%d", run, w, i)
				err := s.Update(context.Background(), func(tx *Tx) error {
					if err := tx.Bucket("first").Put([]byte(key), []byte(key)); err != nil {
						return err
					}
					// Overwritten each time, so that compactions are killed too.
					if err := tx.Bucket("third").Put([]byte{byte(w)}, make([]byte, 100<<10)); err != nil {
						return err
					}
					return tx.Bucket("second").Put([]byte(key), []byte(key))
				})
				mu.Lock()
				if err == nil {
					fmt.Println(key)
				}
				mu.Unlock()
			}
		}()
	}
	select {}
}

func TestAcknowledgedUpdatesSurviveKill9(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	const kills = 25
	for range kills {
		for _, key := range killAfter(t, dir, time.Duration(5+rand.IntN(60))*time.Millisecond) {
			acknowledged[key] = true
		}
		s, err := openAt(t.Context(), dir)
		if err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		check(t, s, acknowledged)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < kills {
		t.Errorf("only %d updates in %d runs: the test shows little", len(acknowledged), kills)
	}
}

// check finds every acknowledged update, and no half of another.
func check(t *testing.T, s *Store, acknowledged map[string]bool) {
	t.Helper()
	seen := map[string]int{}
	err := s.View(t.Context(), func(tx *Tx) error {
		for _, bucket := range []string{"first", "second"} {
			err := tx.Bucket(bucket).Range(nil, func(k, v []byte) error {
				seen[string(k)]++
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for key := range acknowledged {
		if seen[key] != 2 {
			t.Fatalf("acknowledged update %s: %d of 2 values", key, seen[key])
		}
	}
	for key, n := range seen {
		if n != 2 {
			t.Fatalf("update %s is there by half", key)
		}
	}
}

func killAfter(t *testing.T, dir string, d time.Duration) (keys []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), childEnv+"=write")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if len(keys) == 0 {
			time.AfterFunc(d, func() { _ = cmd.Process.Kill() })
		}
		keys = append(keys, lines.Text())
	}
	_ = cmd.Wait()            // it was killed
	return keys[:len(keys)-1] // the last line may be cut off
}

// writeUntilFull runs into the largest possible file, and goes on when there is
// room again.
func writeUntilFull(dir string) error {
	ctx := context.Background()
	s, err := openAt(ctx, dir)
	if err != nil {
		return err
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 20, Max: old.Max}); err != nil {
		return err
	}
	write := func(n int) error {
		return s.Update(ctx, func(tx *Tx) error { return tx.Bucket("b").Put([]byte(strconv.Itoa(n)), make([]byte, 4000)) })
	}
	n := 0
	for ; err == nil; n++ {
		err = write(n)
	}
	if !errkind.Is(err, errkind.Limit) || !s.ReadOnly() || s.Failed() != nil {
		return fmt.Errorf("full disk: %w, read-only %v, failed %v", err, s.ReadOnly(), s.Failed())
	}
	for range 3 {
		if err := write(n); !errkind.Is(err, errkind.Limit) {
			return fmt.Errorf("still full: %w", err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	if err := errors.Join(write(n), write(n+1)); err != nil || s.ReadOnly() {
		return fmt.Errorf("room again: %w, read-only %v", err, s.ReadOnly())
	}
	fmt.Println(n)
	return s.Close()
}

func TestAFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), childEnv+"=full")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || n < 50 {
		t.Fatalf("%d writes before the disk was full, %v", n, err)
	}
	s, err := openAt(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.View(t.Context(), func(tx *Tx) error {
		for i := range n + 2 {
			v, err := tx.Bucket("b").Get([]byte(strconv.Itoa(i)))
			if err != nil {
				return err
			}
			if got := len(v); (got == 4000) == (i == n-1) { // the one that met the full disk
				t.Errorf("value %d has %d bytes", i, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
