package hosting

import (
	"context"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

// Stats are one VCM's figures at one moment.
type Stats struct {
	Record  lifecycle.Record
	Sampled time.Time
	Uptime  time.Duration
	vcmcontrol.Stats
}

// askTimeout is how long a process may take to give its figures.
const askTimeout = time.Second

// Stats asks every VCM now, or the one with uuid.
func (h *Host) Stats(ctx context.Context, uuid string) ([]Stats, error) {
	vcms := h.all()
	if uuid != "" {
		v, err := h.find(uuid)
		if err != nil {
			return nil, err
		}
		vcms = []*vcm{v}
	}
	out := make([]Stats, len(vcms))
	slots := make(chan struct{}, 64)
	var asked sync.WaitGroup
	for i, v := range vcms {
		slots <- struct{}{}
		asked.Go(func() {
			defer func() { <-slots }()
			out[i] = h.ask(ctx, v)
		})
	}
	asked.Wait()
	shown := out[:0]
	for _, s := range out {
		if !s.Record.Pending {
			shown = append(shown, s)
		}
	}
	return shown, nil
}

func (h *Host) ask(ctx context.Context, v *vcm) Stats {
	v.mu.Lock()
	s := Stats{Record: v.rec, Sampled: time.Now()}
	since := v.since
	v.mu.Unlock()
	if p, ok := v.process(); ok {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if st, err := p.Stats(ctx); err == nil {
			s.Stats, s.Uptime = st, time.Since(since)
		}
	}
	if s.DiskUsed == 0 {
		s.DiskUsed = diskUse(h.dataDir(v.uuid))
	}
	return s
}

// diskUse adds up the files of a VCM that cannot be asked.
func diskUse(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is not counted
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
