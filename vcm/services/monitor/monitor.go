// Package monitor is the monitor service of a VCM: its statistics and its
// signed audit log.
package monitor

import (
	"context"
	"strconv"
	"time"

	api "github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// exportBytes is about how much one answer of logExport carries.
const exportBytes = 1 << 20

// expireAtOnce is how many entries one transaction removes at most, so that a
// long log does not hold up the vends that share its commit.
const expireAtOnce = 2000

// Usage is what the process uses of the machine.
type Usage struct {
	Memory     int64 // bytes
	CPUSeconds float64
}

// Config is what the service needs.
type Config struct {
	Store   *store.Store
	Log     *auditlog.Log
	Bucket  func(tx *store.Tx) *store.Bucket // the log's
	Clock   clock.Clock                      // the module's
	Started time.Time                        // by the same clock
	Usage   func() Usage
}

// Service makes a handler for each session.
type Service struct{ cfg Config }

// New returns the service.
func New(cfg Config) *Service { return &Service{cfg} }

// Handler returns the service for one session; actor names who opened it.
func (s *Service) Handler(actor string) api.Monitor { return handler{s.cfg, actor} }

type handler struct {
	Config
	actor string
}

func (h handler) EnvStats(context.Context) (*api.EnvStats, error) {
	now, used := h.Clock.Now(), h.Usage()
	return &api.EnvStats{
		SystemTime: now.Unix(), UptimeSeconds: int64(now.Sub(h.Started).Seconds()),
		MemUsed: used.Memory, DiskUsed: h.Store.DiskUsed(), CpuSeconds: used.CPUSeconds,
	}, nil
}

// LogExport is itself an entry of the log, so that it shows who has read it;
// that entry is not in the export it tells of.
func (h handler) LogExport(ctx context.Context, fromSeq int64, saved bool) (*api.LogExport, error) {
	if fromSeq < 0 {
		return nil, errkind.Errorf(errkind.Invalid, "sequence number %d is negative", fromSeq)
	}
	var e auditlog.Export
	err := h.Store.Shrink(ctx, func(tx *store.Tx) (err error) {
		b := h.Bucket(tx)
		if e, err = h.Log.Export(b, uint64(fromSeq), saved, exportBytes); err != nil || e.Count == 0 {
			return err
		}
		last := e.First + uint64(e.Count) - 1
		return h.note(b, "log.export", map[string]string{
			"first": strconv.FormatUint(e.First, 10), "last": strconv.FormatUint(last, 10), "saved": strconv.FormatBool(saved)})
	})
	if err != nil {
		return nil, err
	}
	return &api.LogExport{FirstSeq: int64(e.First), LastSeq: int64(e.First) + int64(e.Count) - 1, Text: e.Text, More: e.More}, nil
}

func (h handler) LogExpire(ctx context.Context, seq int64) (int64, error) {
	if seq < 0 {
		return 0, errkind.Errorf(errkind.Invalid, "sequence number %d is negative", seq)
	}
	total := int64(0)
	for {
		var n int
		err := h.Store.Shrink(ctx, func(tx *store.Tx) (err error) {
			n, err = h.expireSome(h.Bucket(tx), uint64(seq))
			return err
		})
		if err != nil {
			return 0, err
		}
		total += int64(n)
		if n < expireAtOnce {
			return total, nil
		}
	}
}

func (h handler) expireSome(b *store.Bucket, seq uint64) (int, error) {
	at, err := h.Log.Position(b)
	if err != nil {
		return 0, err
	}
	// The rules are checked for all that was asked, also when only a part is
	// removed now.
	if seq >= at.Exported {
		return h.Log.Expire(b, seq)
	}
	n, err := h.Log.Expire(b, min(seq, at.First+expireAtOnce-1))
	if err != nil || n == 0 {
		return n, err
	}
	return n, h.note(b, "log.expire", map[string]string{
		"first": strconv.FormatUint(at.First, 10), "last": strconv.FormatUint(at.First+uint64(n)-1, 10)})
}

func (h handler) LogKey(context.Context) (string, error) { return h.Log.KeyLine(), nil }

func (h handler) note(b *store.Bucket, kind string, detail map[string]string) error {
	_, err := h.Log.Append(b, auditlog.Entry{Time: h.Clock.Now(), Kind: kind, Actor: h.actor, Subject: h.Log.Origin(), Detail: detail})
	return err
}
