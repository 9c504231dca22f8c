package hosting

import (
	"time"

	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/throttle"
)

// throttle has the VCMs that write too much write slower, until the host closes.
func (h *Host) throttle() {
	disk, err := launch.DiskOf(h.cfg.DataDir)
	if err != nil || disk == "" {
		h.cfg.Log.Info("what VCMs write is not bounded", "folder", h.cfg.DataDir, "err", err)
		return
	}
	for _, v := range h.all() { // a run before this one may have left some throttled
		h.bound(v, disk, 0)
	}
	var judge throttle.Judge
	look := time.NewTicker(throttle.Period)
	defer look.Stop()
	for {
		select {
		case <-h.run.Done():
			return
		case <-look.C:
		}
		total, err := disk.Written()
		if err != nil {
			h.cfg.Log.Warn("what VCMs write is not bounded any more", "err", err)
			return
		}
		var vcms map[string]*vcm
		for _, o := range judge.Judge(time.Now(), total, func() (written map[string]int64) {
			vcms, written = h.writers()
			return written
		}) {
			if o.Throttle && h.bound(vcms[o.UUID], disk, throttle.Limit) {
				h.cfg.Log.Warn("a VCM writes too much and is throttled", "uuid", o.UUID, "bytes_per_second", throttle.Limit)
			} else if !o.Throttle && h.bound(vcms[o.UUID], disk, 0) {
				h.cfg.Log.Info("a VCM writes little again and is not throttled any more", "uuid", o.UUID)
			}
		}
	}
}

func (h *Host) writers() (map[string]*vcm, map[string]int64) {
	vcms, written := map[string]*vcm{}, map[string]int64{}
	for _, v := range h.all() {
		if p, ok := v.process(); ok {
			vcms[v.uuid], written[v.uuid] = v, p.Written()
		}
	}
	return vcms, written
}

// bound bounds what v writes, in bytes a second; 0 is no bound. What the kernel
// refuses is not tried again.
func (h *Host) bound(v *vcm, disk launch.Disk, rate int64) (done bool) {
	p, ok := v.process()
	if !ok {
		return false
	}
	if err := p.Throttle(disk, rate); err != nil {
		h.cfg.Log.Warn("what a VCM writes is not bounded", "uuid", v.uuid, "err", err)
		return false
	}
	return true
}
