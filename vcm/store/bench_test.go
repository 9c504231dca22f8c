package store

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

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
