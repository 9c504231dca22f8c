package sshrpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Serve accepts connections on l until ctx ends, then lets calls in progress
// finish (at most Limits.Drain) and returns nil after the last session ended.
// It closes l. Errors of accept are survived; only a listener that somebody
// else closed ends the service early.
func Serve(ctx context.Context, l net.Listener, cfg ServerConfig) error {
	if err := cfg.check(); err != nil {
		_ = l.Close()
		return err
	}
	cfg.Limits = cfg.Limits.withDefaults()
	// Calls outlive ctx by the drain time, so that their answers still leave.
	calls, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer endCalls()
	s := &server{
		cfg: cfg, calls: calls,
		log:     cfg.Log.With("service", cfg.Service),
		conns:   map[*conn]struct{}{},
		sources: map[netip.Prefix]int{},
	}
	s.ssh = s.newSSH()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	err := s.accept(ctx, l)
	if stop() {
		_ = l.Close()
	}
	s.drain(endCalls)
	return err
}

type server struct {
	cfg   ServerConfig
	log   *slog.Logger
	ssh   *gssh.Server
	calls context.Context

	mu       sync.Mutex
	draining bool
	conns    map[*conn]struct{}
	sources  map[netip.Prefix]int
	pending  int            // connections that have not authenticated
	running  sync.WaitGroup // connections and sessions; added to only before draining
}

func (s *server) accept(ctx context.Context, l net.Listener) error {
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = nc.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return errkind.Errorf(errkind.Unavailable, "service %s: its listener was closed: %w", s.cfg.Service, err)
		case err != nil:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("accept failed; the service goes on", "error", err, "pause", pause)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		c, err := s.admit(nc)
		if err != nil {
			_ = nc.Close()
			s.log.Info("connection refused", "remote", nc.RemoteAddr().String(), "reason", err.Error())
			continue
		}
		go s.handle(c)
	}
}

// admit takes the connection into the books, or says which limit is reached.
func (s *server) admit(nc net.Conn) (*conn, error) {
	source := sourceOf(nc.RemoteAddr())
	lim := s.cfg.Limits
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.conns) >= lim.Connections:
		return nil, errkind.Errorf(errkind.Limit, "%d connections are open", lim.Connections)
	case s.sources[source] >= lim.PerSource:
		return nil, errkind.Errorf(errkind.Limit, "%d connections from %s are open", lim.PerSource, source)
	case s.pending >= lim.Unauthenticated:
		return nil, errkind.Errorf(errkind.Limit, "%d connections are still authenticating", lim.Unauthenticated)
	}
	c := newConn(nc, s, source)
	s.conns[c] = struct{}{}
	s.sources[source]++
	s.pending++
	s.running.Add(1)
	return c, nil
}

func (s *server) handle(c *conn) {
	defer s.running.Done()
	defer s.forget(c)
	defer func() {
		if p := recover(); p != nil {
			s.logPanic("connection", c.RemoteAddr(), p)
		}
		_ = c.Close()
	}()
	s.ssh.HandleConn(c)
}

func (s *server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.sources[c.source]--; s.sources[c.source] == 0 {
		delete(s.sources, c.source)
	}
	if c.prove(nil) {
		s.pending--
	}
}

// proved notes that c's client proved key.
func (s *server) proved(c *conn, key ssh.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.prove(key) {
		s.pending--
	}
}

// begin registers a session; false once the service ends.
func (s *server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.running.Add(1)
	return true
}

func (s *server) drain(endCalls context.CancelFunc) {
	s.mu.Lock()
	s.draining = true
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.drain()
	}
	force := time.AfterFunc(s.cfg.Limits.Drain, func() {
		s.log.Warn("calls in progress were cut off", "after", s.cfg.Limits.Drain)
		endCalls()
		for _, c := range open {
			_ = c.Close()
		}
	})
	s.running.Wait()
	force.Stop()
}

// sourceOf is what the per-source limit counts by.
func sourceOf(a net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{} // not IP: one source together
	}
	addr := ap.Addr().Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
