package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// What a vend writes: a meter's memory, a register, a result, and the log.
const (
	benchKeys  = 4
	benchValue = 200
)

func benchKey(n uint64, i int) []byte {
	return binary.BigEndian.AppendUint64([]byte{byte(i)}, n)
}

// inParallel shares b.N calls among clients.
func inParallel(b *testing.B, clients int, call func(n uint64) error) {
	b.Helper()
	var next atomic.Uint64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > uint64(b.N) {
					return
				}
				if err := call(n % 10_000); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func BenchmarkUpdate(b *testing.B) {
	for _, clients := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			s := newFixture(b).mustOpen(b)
			value := make([]byte, benchValue)
			inParallel(b, clients, func(n uint64) error {
				return s.Update(b.Context(), func(tx *Tx) error {
					for i := range benchKeys {
						if err := tx.Bucket("b").Put(benchKey(n, i), value); err != nil {
							return err
						}
					}
					return nil
				})
			})
			b.ReportMetric(float64(b.N)/float64(s.seq), "updates/commit")
		})
	}
}

// BenchmarkUpdateBesideCompaction is the longest that an update takes while 14 MB
// are copied again and again, beside the longest without that.
func BenchmarkUpdateBesideCompaction(b *testing.B) {
	for _, beside := range []bool{false, true} {
		b.Run(fmt.Sprintf("compaction=%t", beside), func(b *testing.B) {
			f := newFixture(b)
			f.quota, f.cold = 64<<20, []Keys{{Bucket: "cold"}}
			s := f.mustOpen(b)
			value := make([]byte, benchValue)
			put := func(bucket string, n uint64) error {
				return s.Update(b.Context(), func(tx *Tx) error {
					for i := range benchKeys {
						if err := tx.Bucket(bucket).Put(benchKey(n, i), value); err != nil {
							return err
						}
					}
					return nil
				})
			}
			const entries = 14 << 20 / benchKeys / (benchValue + 20) / 2
			var wg sync.WaitGroup
			for c := range uint64(64) {
				wg.Go(func() {
					for i := c; i < entries; i += 64 {
						if err := errors.Join(put("cold", i), put("warm", i)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			var longest atomic.Int64
			var stop atomic.Bool
			b.ResetTimer()
			for c := range uint64(8) {
				wg.Go(func() {
					for n := c; !stop.Load(); n += 8 {
						began := time.Now()
						if err := put("warm", n%entries); err != nil {
							b.Error(err)
							return
						}
						for took := int64(time.Since(began)); ; {
							if before := longest.Load(); took <= before || longest.CompareAndSwap(before, took) {
								break
							}
						}
					}
				})
			}
			began, copies := time.Now(), 0
			for copies < 5 {
				copies++
				if !beside {
					time.Sleep(200 * time.Millisecond)
				} else if err := s.rewrite(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(time.Since(began).Milliseconds())/float64(copies), "ms/copy")
			stop.Store(true)
			wg.Wait()
			b.ReportMetric(float64(longest.Load())/1e6, "longest-ms")
		})
	}
}

// BenchmarkBareBolt is the reference: the same writes, each in a commit of its
// own, or with bbolt's own batching, unsealed.
func BenchmarkBareBolt(b *testing.B) {
	for _, clients := range []int{1, 64} {
		for name, update := range map[string]func(*bolt.DB) func(func(*bolt.Tx) error) error{
			"Update": func(db *bolt.DB) func(func(*bolt.Tx) error) error { return db.Update },
			"Batch":  func(db *bolt.DB) func(func(*bolt.Tx) error) error { return db.Batch },
		} {
			b.Run(fmt.Sprintf("%s/%d", name, clients), func(b *testing.B) {
				db, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
				if err != nil {
					b.Fatal(err)
				}
				defer db.Close()
				value := make([]byte, benchValue)
				inParallel(b, clients, func(n uint64) error {
					return update(db)(func(tx *bolt.Tx) error {
						bucket, err := tx.CreateBucketIfNotExists([]byte("b"))
						for i := 0; i < benchKeys && err == nil; i++ {
							err = bucket.Put(benchKey(n, i), value)
						}
						return err
					})
				})
			})
		}
	}
}
