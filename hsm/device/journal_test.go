package device

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func testMAC() []byte { return bytes.Repeat([]byte{7}, 32) }

// journalOf returns a journal of the batches and where each one ends.
func journalOf(batches ...map[uint32]uint64) (p []byte, ends []int) {
	p = []byte(journalHead)
	for i, b := range batches {
		p = append(p, encodeBatch(testMAC(), uint64(i), b)...)
		ends = append(ends, len(p))
	}
	return p, ends
}

func TestJournalCutAnywhereKeepsEveryWholeBatch(t *testing.T) {
	t.Parallel()
	batches := []map[uint32]uint64{{}, {1: 5}, {1: 6, 2: 1}, {3: 9}, {1: 7}}
	p, ends := journalOf(batches...)
	for cut := ends[0]; cut <= len(p); cut++ {
		want := map[uint32]uint64{}
		for i, end := range ends {
			if end <= cut {
				maps.Copy(want, batches[i])
			}
		}
		got, err := parseJournal(p[:cut], testMAC())
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("cut at %d: %v, %v; want %v", cut, got, err, want)
		}
		// A disk may also extend the file before it writes the data.
		got, err = parseJournal(append(bytes.Clone(p[:cut]), make([]byte, 100)...), testMAC())
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("cut at %d and zeros: %v, %v; want %v", cut, got, err, want)
		}
	}
}

func TestJournalDamageBeforeTheEndIsNoticed(t *testing.T) {
	t.Parallel()
	p, ends := journalOf(map[uint32]uint64{1: 1}, map[uint32]uint64{1: 2}, map[uint32]uint64{1: 3})
	for i := range ends[1] {
		q := bytes.Clone(p)
		q[i] ^= 0x40
		if got, err := parseJournal(q, testMAC()); err == nil {
			t.Errorf("byte %d of %d changed, read %v", i, len(p), got)
		}
	}
	left := append(bytes.Clone(p[:ends[0]]), p[ends[1]:]...)
	if got, err := parseJournal(left, testMAC()); err == nil && got[1] == 3 {
		t.Error("a batch was left out and nobody noticed")
	}
}

func TestCountersNeverGoBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "c")
		if err != nil {
			rt.Fatal(err)
		}
		path := filepath.Join(dir, "counters")
		live := map[uint32]bool{10000001: true, 10000002: true}
		names := []string{"10000001", "10000002"}
		model := map[string]uint64{}
		open := func() *counters {
			c, err := openCounters(path, testMAC(), live)
			if err != nil {
				rt.Fatal(err)
			}
			return c
		}
		c := open()
		defer func() { _ = c.close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"raise": func(rt *rapid.T) {
				name := rapid.SampledFrom(names).Draw(rt, "counter")
				v := rapid.Uint64Range(0, 50).Draw(rt, "value")
				got, err := c.raise(t.Context(), name, v)
				model[name] = max(model[name], v)
				if err != nil || got != model[name] {
					rt.Fatalf("raise %s to %d: %d, %v; want %d", name, v, got, err, model[name])
				}
			},
			"restart": func(*rapid.T) {
				if err := c.close(); err != nil {
					rt.Fatal(err)
				}
				c = open()
			},
			"crash": func(rt *rapid.T) {
				if err := c.close(); err != nil {
					rt.Fatal(err)
				}
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					rt.Fatal(err)
				}
				_, err = f.Write(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "torn"))
				if err != nil || f.Close() != nil {
					rt.Fatal(err)
				}
				c = open()
			},
			"": func(rt *rapid.T) {
				for _, name := range names {
					if got := c.value(name); got != model[name] {
						rt.Fatalf("%s is %d, want %d", name, got, model[name])
					}
				}
			},
		})
	})
}

func TestManyRaisesShareTheDisk(t *testing.T) {
	t.Parallel()
	live := map[uint32]bool{1: true}
	path := filepath.Join(t.TempDir(), "counters")
	c, err := openCounters(path, testMAC(), live)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			v := uint64(i + 1)
			if got, err := c.raise(t.Context(), "00000001", v); err != nil || got < v {
				t.Errorf("raise to %d: %d, %v", v, got, err)
			}
		})
	}
	wg.Wait()
	if got := c.value("00000001"); got != 400 {
		t.Errorf("counter %d", got)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.raise(t.Context(), "00000001", 500); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("raise after close: %v", err)
	}
}

func TestJournalIsCompacted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "counters")
	c, err := openCounters(path, testMAC(), map[uint32]bool{1: true})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.size = compactAt // as if it had grown; the file's gap is never read
	c.mu.Unlock()
	for v := range uint64(3) {
		if _, err := c.raise(t.Context(), "00000001", v+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Size() > 1000 {
		t.Errorf("journal of %d bytes, %v", fi.Size(), err)
	}
	values, err := readJournal(path, testMAC())
	if err != nil || values[1] != 3 {
		t.Errorf("%v, %v", values, err)
	}
}

// After a failed write nobody knows what the disk holds: the counters stop.
func TestFailedWriteStopsTheCounters(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "counters")
	c, err := openCounters(path, testMAC(), map[uint32]bool{1: true})
	if err != nil {
		t.Fatal(err)
	}
	good := c.f
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.f = full
	if _, err := c.raise(t.Context(), "00000001", 1); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("raise on a full disk: %v", err)
	}
	if got := c.value("00000001"); got != 0 {
		t.Errorf("the counter shows %d, which is not durable", got)
	}
	c.mu.Lock()
	c.f = good
	c.mu.Unlock()
	if _, err := c.raise(t.Context(), "00000001", 2); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("raise after a failure: %v", err)
	}
	_ = full.Close()
	_ = c.close()
}

func FuzzParseJournal(f *testing.F) {
	p, _ := journalOf(map[uint32]uint64{}, map[uint32]uint64{1: 5}, map[uint32]uint64{1: 6, 2: 1})
	f.Add(p)
	f.Add(p[:len(p)-3])
	f.Add([]byte(journalHead))
	f.Fuzz(func(t *testing.T, p []byte) {
		values, err := parseJournal(p, testMAC())
		if err != nil {
			return
		}
		again, err := parseJournal(append([]byte(journalHead), encodeBatch(testMAC(), 0, values)...), testMAC())
		if err != nil || !maps.Equal(again, values) {
			t.Fatalf("%v became %v, %v", values, again, err)
		}
	})
}
