package conductor

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// watch closes a stream that takes too long. Unlike a deadline it works for
// sockets and SSH sessions alike.
type watch struct {
	mu     sync.Mutex
	stream io.Closer
	timer  *time.Timer
	until  time.Time
	what   string
	fired  error
}

func newWatch(stream io.Closer) *watch {
	w := &watch{stream: stream}
	w.timer = time.AfterFunc(time.Hour, w.fire)
	w.timer.Stop()
	return w
}

// arm gives the stream d from now on.
func (w *watch) arm(d time.Duration, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until, w.what = time.Now().Add(d), what
	w.timer.Reset(d)
}

func (w *watch) disarm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = time.Time{}
	w.timer.Stop()
}

func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until.IsZero() || time.Now().Before(w.until) { // it was armed again meanwhile
		return
	}
	w.fired = fmt.Errorf("dropped: %s", w.what)
	_ = w.stream.Close()
}

func (w *watch) stop() { w.disarm() }

// reason returns why the stream was dropped, nil if it was not.
func (w *watch) reason() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fired
}
