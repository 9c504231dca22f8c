package monitor

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

type counter struct{}

func (counter) Raise(_ context.Context, v uint64) (uint64, error) { return v, nil }

type rig struct {
	t     *testing.T
	store *store.Store
	log   *auditlog.Log
	h     handler
}

func newRig(t *testing.T, quota int64) *rig {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{
		Dir: dir, Key: make([]byte, 32), Counter: counter{}, Quota: quota, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); dir.Close() })
	log, err := auditlog.New(auditlog.Config{Origin: "o", Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Unix(1_800_000_000, 0)
	c := clock.NewFake(began.Add(time.Minute))
	r := &rig{t: t, store: s, log: log}
	r.h = handler{Config{
		Store: s, Log: log, Bucket: bucket, Clock: c, Started: began, Usage: func() Usage { return Usage{Memory: 7, CPUSeconds: 1.5} },
	}, "me"}
	return r
}

func bucket(tx *store.Tx) *store.Bucket { return tx.Bucket("log") }

// fill appends entries, n at a time, until count or an error.
func (r *rig) fill(count, n int) error {
	for done := 0; done < count; done += n {
		err := r.store.Update(r.t.Context(), func(tx *store.Tx) error {
			for i := range n {
				e := auditlog.Entry{Time: time.Unix(1, 0), Kind: "vend.credit", Detail: map[string]string{"text": strings.Repeat("x", 300), "n": fmt.Sprint(i)}}
				if _, err := r.log.Append(bucket(tx), e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestEnvStats(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4<<20)
	s, err := r.h.EnvStats(t.Context())
	if err != nil || s.SystemTime != 1_800_000_060 || s.UptimeSeconds != 60 || s.MemUsed != 7 || s.CpuSeconds != 1.5 || s.DiskUsed <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A log longer than one answer, on a full disk: exported whole, verified,
// expired, and the VCM works again.
func TestAFullLogIsExportedAndExpired(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4<<20)
	if err := r.fill(1_000_000, 200); !errkind.Is(err, errkind.Limit) {
		t.Fatalf("filling: %v", err)
	}
	if _, err := r.h.LogExpire(t.Context(), 0); !errkind.Is(err, errkind.Refused) {
		t.Errorf("expire before export: %v", err)
	}
	var prev *auditlog.Verified
	from, records, answers := int64(0), 0, 0
	for more := true; more; answers++ {
		e, err := r.h.LogExport(t.Context(), from, false)
		if err != nil {
			t.Fatal(err)
		}
		v, err := auditlog.Verify(e.Text, r.log.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		if prev != nil {
			if err := v.Follows(*prev); err != nil {
				t.Fatal(err)
			}
		}
		prev, more, from = &v, e.More, e.LastSeq+1
		records += len(v.Records)
	}
	if answers < 2 {
		t.Errorf("%d entries in %d answers: the test shows little", records, answers)
	}
	if _, err := r.h.LogExport(t.Context(), 1, false); !errkind.Is(err, errkind.Refused) {
		t.Errorf("second export without saved: %v", err)
	}
	if e, err := r.h.LogExport(t.Context(), 1, true); err != nil || e.FirstSeq != 1 {
		t.Errorf("saved: %+v, %v", e, err)
	}
	n, err := r.h.LogExpire(t.Context(), from-1)
	if err != nil || n != int64(records) {
		t.Errorf("expired %d of %d, %v", n, records, err)
	}
	if err := r.fill(10, 10); err != nil {
		t.Errorf("after expiry: %v", err)
	}
	next, err := r.h.LogExport(t.Context(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	v, err := auditlog.Verify(next.Text, r.log.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, rec := range v.Records {
		kinds[rec.Kind] = rec.Actor == "me"
	}
	if !kinds["log.export"] || !kinds["log.expire"] {
		t.Errorf("the log does not tell who read and removed it: %v", kinds)
	}
}

func TestNothingToExport(t *testing.T) {
	t.Parallel()
	r := newRig(t, 4<<20)
	if e, err := r.h.LogExport(t.Context(), 0, false); err != nil || e.LastSeq >= e.FirstSeq || e.More || len(e.Text) != 0 {
		t.Errorf("%+v, %v", e, err)
	}
	for _, seq := range []int64{-1, 5} {
		if _, err := r.h.LogExpire(t.Context(), seq); err == nil {
			t.Errorf("expire of %d", seq)
		}
	}
	if _, err := r.h.LogExport(t.Context(), -1, false); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("export from -1: %v", err)
	}
	if k, err := r.h.LogKey(t.Context()); err != nil || !strings.HasPrefix(k, "ssh-ed25519 ") {
		t.Errorf("key %q, %v", k, err)
	}
}
