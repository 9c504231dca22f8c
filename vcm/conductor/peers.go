package conductor

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// peer is one open socket or SSH session.
type peer struct {
	stream io.ReadWriteCloser
	socket bool
	gone   chan struct{} // closed when it has had its last answer

	mu   sync.Mutex
	busy bool // from a command's first byte until its answer is written
	last bool // there is no command after this one
}

// begin notes a command; false if there is to be none.
func (p *peer) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = !p.last
	return p.busy
}

// end notes that a command is answered; false if it was the last.
func (p *peer) end() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = false
	return !p.last
}

// sendAway closes the peer as soon as it has no command under way.
func (p *peer) sendAway() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = true
	if !p.busy {
		_ = p.stream.Close()
	}
}

func (p *peer) dismissed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// peers are those that are connected, and how many there were.
type peers struct {
	commands atomic.Uint64

	mu       sync.Mutex
	open     map[*peer]bool
	sockets  int
	since    time.Time
	restarts int
	accepted uint64
	refused  uint64
}

// addSocket takes a connection in, unless there are as many as may be.
func (ps *peers) addSocket(p *peer, most int) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.sockets >= most {
		ps.refused++
		return false
	}
	p.socket = true
	ps.sockets++
	ps.add(p)
	return true
}

// addSession takes an SSH session in; their number is limited where they come from.
func (ps *peers) addSession(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.add(p)
}

func (ps *peers) add(p *peer) {
	if ps.open == nil {
		ps.open = make(map[*peer]bool)
	}
	p.gone = make(chan struct{})
	ps.open[p] = true
	ps.accepted++
}

func (ps *peers) remove(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.open, p)
	if p.socket {
		ps.sockets--
	}
	close(p.gone)
}

// Status is what a server does.
type Status struct {
	Settings
	Sockets  int       // open now
	Sessions int       // SSH sessions open now
	Started  time.Time // or restarted
	Restarts int
	Accepted uint64 // sockets and sessions so far
	Refused  uint64 // sockets that were too many
	Commands uint64
}

// Status reports what the server does now.
func (s *Server) Status() Status {
	ps := &s.peers
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return Status{
		Settings: s.settings(), Sockets: ps.sockets, Sessions: len(ps.open) - ps.sockets, Started: ps.since, Restarts: ps.restarts,
		Accepted: ps.accepted, Refused: ps.refused, Commands: ps.commands.Load(),
	}
}

// Restart ends every socket and session and starts afresh. A command that is
// under way gets its answer first; the module is not touched, and clients may
// connect again at once. Who asked for it is in the audit log first. It returns
// how many it ended.
func (s *Server) Restart(ctx context.Context, by string) (int, error) {
	if s.cfg.AuditRestart != nil {
		if err := s.cfg.AuditRestart(ctx, by); err != nil {
			return 0, err
		}
	}
	ps := &s.peers
	ps.mu.Lock()
	var all []*peer
	for p := range ps.open {
		all = append(all, p)
	}
	ps.since = s.cfg.Clock.Now()
	ps.restarts++
	ps.mu.Unlock()
	for _, p := range all {
		p.sendAway()
	}
	for _, p := range all {
		select {
		case <-p.gone:
		case <-ctx.Done():
			return len(all), errkind.Errorf(errkind.Unavailable, "a command of the Conductor is still under way: %w", context.Cause(ctx))
		}
	}
	return len(all), nil
}
