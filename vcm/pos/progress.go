package pos

import (
	"context"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// fetchPatience is how long a fetch waits for a call in progress: longer than any
// such call takes.
const fetchPatience = 15 * time.Second

// progress knows the issuing calls that have not ended, so that a lost answer is
// not told to be none while its call may still issue.
type progress struct {
	mu    sync.Mutex
	calls map[string]*openCalls // by caller and message id
}

// openCalls are calls with one message id; ended, if anybody waits, is closed with
// the last of them.
type openCalls struct {
	n     int
	ended chan struct{}
}

func progressKey(c Caller, messageID string) string { return string(c.key('c')) + messageID }

// Begin notes that a call may issue from now on. The caller calls end, once, when it
// has, or has not: until then Fetch of its result waits.
func (s *Service) Begin(c Caller, messageID string) (end func()) {
	p, key := &s.progress, progressKey(c, messageID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls == nil {
		p.calls = map[string]*openCalls{}
	}
	o := p.calls[key]
	if o == nil {
		o = new(openCalls)
		p.calls[key] = o
	}
	o.n++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if o.n--; o.n > 0 {
			return
		}
		delete(p.calls, key)
		if o.ended != nil {
			close(o.ended)
		}
	}
}

// wait returns once no call with that message id is in progress.
func (p *progress) wait(ctx context.Context, c Caller, messageID string) error {
	p.mu.Lock()
	o := p.calls[progressKey(c, messageID)]
	if o == nil {
		p.mu.Unlock()
		return nil
	}
	if o.ended == nil {
		o.ended = make(chan struct{})
	}
	ended := o.ended
	p.mu.Unlock()
	timer := time.NewTimer(fetchPatience)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return errkind.Errorf(errkind.Unavailable, "the service is stopping")
	case <-timer.C:
		return errkind.Errorf(errkind.Unavailable, "the call of message %q is still in progress; ask again", messageID)
	}
}
