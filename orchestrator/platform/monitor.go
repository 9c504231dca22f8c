package platform

import (
	"context"
	"time"

	api "github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
)

// exportBytes is about how much one answer of logExport carries.
const exportBytes = 1 << 20

type monitorService struct{ call }

func (s monitorService) EnvStats(ctx context.Context) (*api.EnvStats, error) {
	t, err := s.time(ctx)
	if err != nil {
		return nil, err
	}
	vcms, err := s.p.host.Stats(ctx, "")
	if err != nil {
		return nil, err
	}
	memory, cpu := s.p.cfg.Usage()
	out := &api.EnvStats{
		SystemTime: t.Module.Unix(), UptimeSeconds: int64(time.Since(s.p.cfg.Started).Seconds()),
		MemUsed: memory, CpuSeconds: cpu,
	}
	for _, v := range vcms {
		out.MemUsed += v.Memory
		out.DiskUsed += v.DiskUsed
		out.CpuSeconds += v.CPUSeconds
	}
	return out, nil
}

func (s monitorService) LogExport(ctx context.Context, fromSeq int64, saved bool) (*api.LogExport, error) {
	if fromSeq < 0 {
		return nil, errkind.Errorf(errkind.Invalid, "sequence number %d is negative", fromSeq)
	}
	var e auditlog.Export
	err := s.p.cfg.Ledger.Update(ctx, func(tx ledger.Tx) (err error) {
		e, err = s.p.cfg.Audit.log.Export(tx.Log(), uint64(fromSeq), saved, exportBytes)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.LogExport{FirstSeq: int64(e.First), LastSeq: int64(e.First) + int64(e.Count) - 1, Text: e.Text, More: e.More}, nil
}

// LogExpire changes the platform's state, so it waits until no tenant's service
// is operational.
func (s monitorService) LogExpire(ctx context.Context, seq int64) (int64, error) {
	if seq < 0 {
		return 0, errkind.Errorf(errkind.Invalid, "sequence number %d is negative", seq)
	}
	if err := s.p.host.Busy(ctx); err != nil {
		return 0, err
	}
	entry, err := s.entry(ctx)
	if err != nil {
		return 0, err
	}
	entry.Kind = "log.expire"
	var removed int
	err = s.p.cfg.Ledger.Update(ctx, func(tx ledger.Tx) (err error) {
		if removed, err = s.p.cfg.Audit.log.Expire(tx.Log(), uint64(seq)); err != nil {
			return err
		}
		return s.p.cfg.Audit.in(tx, entry)
	})
	return int64(removed), err
}

func (s monitorService) LogKey(context.Context) (string, error) {
	return s.p.cfg.Audit.log.KeyLine(), nil
}
