package console

import (
	"github.com/schollz/progressbar/v3"
)

// Progress shows how far a long operation is, on a terminal only.
type Progress struct{ bar *progressbar.ProgressBar }

// NewProgress begins a progress display of total steps.
func (e *Env) NewProgress(total int, what string) *Progress {
	if total < 2 || !e.Interactive() {
		return &Progress{}
	}
	return &Progress{bar: progressbar.NewOptions(total,
		progressbar.OptionSetWriter(e.Stderr), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionClearOnFinish())}
}

// Add moves the display on by n steps.
func (p *Progress) Add(n int) {
	if p.bar != nil {
		_ = p.bar.Add(n) // a display that cannot be drawn stops nothing
	}
}

// End removes the display.
func (p *Progress) End() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
