package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func TestOverItsQuotaAStoreIsReadOnlyAndLosesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.quota = 2 << 20
	var said bytes.Buffer
	f.log = slog.New(slog.NewTextHandler(&said, nil))
	s := f.mustOpen(t)
	value := []byte(strings.Repeat("v", 200))
	n := 0
	for ; ; n += 10 { // ten a transaction, to spare the disk
		err := s.Update(t.Context(), func(tx *Tx) error {
			for i := range 10 {
				if err := tx.Bucket("b").Put(fmt.Appendf(nil, "%06d", n+i), value); err != nil {
					return err
				}
			}
			return nil
		})
		if errkind.Is(err, errkind.Limit) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if int64(n)*200 > f.quota {
			t.Fatal("the quota was not kept")
		}
	}
	if n < 4000 {
		t.Errorf("only %d values of 200 bytes fit into %d bytes", n, f.quota)
	}
	if !s.ReadOnly() || s.DiskUsed() > f.quota {
		t.Errorf("read-only %v, %d used", s.ReadOnly(), s.DiskUsed())
	}
	if st, err := os.Stat(f.file()); err != nil || st.Size() > f.quota+f.quota/4 {
		t.Errorf("the file has %d bytes, %v", st.Size(), err)
	}
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.Bucket("small").Put([]byte("k"), []byte("v")) })
	if !errkind.Is(err, errkind.Limit) {
		t.Errorf("a small update: %v", err)
	}
	err = s.Shrink(t.Context(), func(tx *Tx) error { return tx.Bucket("small").Put([]byte("note"), []byte("v")) })
	if err != nil {
		t.Errorf("a transaction that shrinks may note it: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = f.mustOpen(t)
	if !s.ReadOnly() {
		t.Error("not read-only after reopening")
	}
	for i := range n {
		if got := get(t, s, "b", fmt.Sprintf("%06d", i)); got != string(value) {
			t.Fatalf("value %d was lost", i)
		}
	}
	err = s.Update(t.Context(), func(tx *Tx) error { // deletions need no permission
		for i := range n / 2 {
			if err := tx.Bucket("b").Delete(fmt.Appendf(nil, "%06d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.ReadOnly() {
		t.Error("read-only although half is free")
	}
	put(t, s, "b", "new", "v")
	before := s.DiskUsed()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.mustOpen(t)
	if got := get(t, s, "b", "new"); got != "v" || s.DiskUsed() > before {
		t.Errorf("new = %q, %d used after %d", got, s.DiskUsed(), before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Three openings are no changes.
	if n := strings.Count(said.String(), "read-only state changed"); n != 2 {
		t.Errorf("the log tells of %d changes, not of 2:\n%s", n, &said)
	}
}

func TestAMostlyFreeFileIsCompacted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.mustOpen(t)
	err := s.Update(t.Context(), func(tx *Tx) error {
		for i := range 5000 {
			if err := tx.Bucket("b").Put(fmt.Appendf(nil, "%06d", i), make([]byte, 1000)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx *Tx) error {
		return tx.Bucket("b").Range(nil, func(k, _ []byte) error {
			if string(k) == "000007" {
				return nil
			}
			return tx.Bucket("b").Delete(k)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "c", "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = f.mustOpen(t)
	if st, err := os.Stat(f.file()); err != nil || st.Size() > 1<<20 {
		t.Errorf("the file has %d bytes, %v", st.Size(), err)
	}
	if got := get(t, s, "b", "000007"); len(got) != 1000 {
		t.Errorf("the remaining value has %d bytes", len(got))
	}
	if got := get(t, s, "c", "k"); got != "v" {
		t.Errorf("c/k = %q", got)
	}
	put(t, s, "c", "k", "w")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.mustOpen(t)
}
