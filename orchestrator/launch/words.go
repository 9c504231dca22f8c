package launch

import (
	"bytes"
	"io"
	"log/slog"
	"time"
)

const (
	// maxLine is how much of one line of a process is kept.
	maxLine = 1000
	// burst and perSecond bound how many lines a process gets into the log.
	burst     = 200
	perSecond = 10
)

// words passes what a process says on standard error on to the log, line by
// line and not faster than the log can bear.
type words struct {
	log     *slog.Logger
	line    []byte
	room    float64
	last    time.Time
	dropped int
}

func newWords(log *slog.Logger) *words { return &words{log: log, room: burst, last: time.Now()} }

// ReadFrom implements io.ReaderFrom with less memory than a copy would take.
func (w *words) ReadFrom(r io.Reader) (n int64, err error) {
	var p [512]byte
	for {
		m, err := r.Read(p[:])
		_, _ = w.Write(p[:m])
		n += int64(m)
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		}
	}
}

// Write implements io.Writer; only one goroutine calls it.
func (w *words) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		w.line = append(w.line, line[:min(len(line), maxLine-len(w.line))]...)
		if whole {
			w.say(time.Now())
		}
		p = rest
	}
	return n, nil
}

func (w *words) say(now time.Time) {
	line := printable(string(w.line))
	w.line = w.line[:0]
	w.room = min(burst, w.room+perSecond*now.Sub(w.last).Seconds())
	w.last = now
	if line == "" {
		return
	}
	if w.room < 1 {
		w.dropped++
		return
	}
	w.room--
	if w.dropped > 0 {
		w.log.Warn("lines of a VCM dropped", "count", w.dropped)
		w.dropped = 0
	}
	w.log.Info("VCM says", "line", line)
}
