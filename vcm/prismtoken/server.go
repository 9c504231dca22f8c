// Package prismtoken serves the TokenApi, the Thrift interface of the point of
// sale, over TLS.
//
// # Wire
//
// A connection carries TLS 1.2 or 1.3, in it frames of a 4-byte length and one
// message of the strict binary protocol. One goroutine serves a connection and
// answers one message at a time; each answer is one write, hence one TLS record.
// A message that cannot be understood is answered with an application exception
// under its own sequence number and the connection lives on, because the frame
// tells where the next message begins. Only a frame of impossible length ends it.
//
// # Limits
//
// Every step has a deadline: the handshake, the rest of a frame once it has
// begun, idleness, the write. Memory is bounded by the number of connections
// and by what they have really sent; large frames share a bounded allowance. At
// the connection limit the one that has been idle for longest makes room, so
// that silent connections cannot keep anybody out.
package prismtoken

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
)

// Licences loads transaction licences into the security module.
type Licences interface {
	LoadLicence(ctx context.Context, text string) (tsm.Licence, error)
}

// Speed lets issuing calls pass at the rate that the VCM is rated for.
type Speed interface {
	Take(ctx context.Context) error
}

// unlimited is for a VCM without a rating.
type unlimited struct{}

func (unlimited) Take(context.Context) error { return nil }

// Config is what a server needs. Zero limits take their defaults.
type Config struct {
	Accounts    *accounts.Accounts
	POS         *pos.Service
	Dashboard   *dashboard.Dashboard
	Module      Licences
	Speed       Speed // nil: not limited
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Clock       clock.Clock
	Log         *slog.Logger
	Limits      Limits
}

// Limits bound what clients can take.
type Limits struct {
	Connections int           // open at a time; default the preference's
	FrameSize   int           // default 1 MiB
	Handshake   time.Duration // default 10 s
	Frame       time.Duration // from the first byte of a frame to its last; default 20 s
	Idle        time.Duration // default 10 min
	Write       time.Duration // default 20 s
	Drain       time.Duration // for calls in progress at the end; default 5 s
}

func (l Limits) withDefaults(connections int) Limits {
	if l.Connections == 0 {
		l.Connections = connections
	}
	if l.FrameSize == 0 {
		l.FrameSize = 1 << 20
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&l.Handshake, 10 * time.Second}, {&l.Frame, 20 * time.Second}, {&l.Idle, 10 * time.Minute}, {&l.Write, 20 * time.Second}, {&l.Drain, 5 * time.Second}} {
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	return l
}

// Stats are a server's counters.
type Stats struct {
	Requests    int64
	Tokens      int64
	Connections int64 // open now
}

// Server serves the TokenApi.
type Server struct {
	handler *handler
	tls     *tls.Config
	limits  Limits
	log     *slog.Logger
	codecs  sync.Pool
	large   chan struct{} // allowance for frames above smallFrame

	requests atomic.Int64

	mu    sync.Mutex
	conns map[*conn]struct{}
	wait  sync.WaitGroup
}

// descriptorReserve is what the rest of the process needs of its descriptors.
const descriptorReserve = 128

// NewServer returns a server. It does nothing until Serve.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Accounts == nil || cfg.POS == nil || cfg.Certificate == nil {
		return nil, errkind.Errorf(errkind.Internal, "the token service needs accounts, a point of sale and a certificate")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Speed == nil {
		cfg.Speed = unlimited{}
	}
	most := int(cfg.Accounts.Preferences().Int(accounts.PrefMaxConnections))
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && files.Cur < uint64(most+descriptorReserve) {
		most = max(16, int(files.Cur)-descriptorReserve)
		cfg.Log.Warn("fewer connections than preferred: the descriptor limit is lower", "connections", most, "descriptors", files.Cur)
	}
	s := &Server{
		handler: &handler{accounts: cfg.Accounts, pos: cfg.POS, dashboard: cfg.Dashboard, module: cfg.Module, speed: cfg.Speed, log: cfg.Log},
		tls: &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: cfg.Certificate,
			// One write is one record, also at the beginning of a connection.
			DynamicRecordSizingDisabled: true,
		},
		limits: cfg.Limits.withDefaults(most),
		log:    cfg.Log,
		large:  make(chan struct{}, largeFrames),
		conns:  make(map[*conn]struct{}),
	}
	s.codecs.New = func() any { return newCodec(s.limits.FrameSize) }
	return s, nil
}

// Stats returns the counters since the start.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	return Stats{Requests: s.requests.Load(), Tokens: s.handler.tokens.Load(), Connections: int64(open)}
}

// Serve answers connections of l until ctx ends, then lets calls in progress
// finish within Limits.Drain. It closes l and returns after every connection
// has ended. Errors of accept are survived; only a listener that somebody else
// closed ends it early.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// calls outlives ctx by the drain.
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	err := s.accept(ctx, calls, l)
	l.Close()
	s.drain(cancel)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// accept backs off from errors, which are mostly a lack of descriptors, by up
// to a second, and gives back a descriptor that nobody uses.
func (s *Server) accept(ctx, calls context.Context, l net.Listener) error {
	const first, last = 5 * time.Millisecond, time.Second
	wait := first
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			wait = first
			s.admit(ctx, calls, raw)
			continue
		case ctx.Err() != nil:
			return nil
		case isClosed(err):
			return errkind.Errorf(errkind.Internal, "the token service's listener was closed: %w", err)
		}
		s.log.Warn("a connection could not be accepted", "error", err)
		s.evict()
		select {
		case <-time.After(wait):
			wait = min(2*wait, last)
		case <-ctx.Done():
			return nil
		}
	}
}

// admit starts to serve a connection, making room for it if need be.
func (s *Server) admit(ctx, calls context.Context, raw net.Conn) {
	s.mu.Lock()
	full := len(s.conns) >= s.limits.Connections
	s.mu.Unlock()
	if full && !s.evict() {
		raw.Close()
		return
	}
	c := newConn(s, raw)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		c.serve(ctx, calls)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}

// looked is how many connections are considered when one has to go: enough to
// find one that has been idle for long, few enough to cost nothing.
const looked = 128

// evict closes the longest idle of some connections and reports whether there
// was one.
func (s *Server) evict() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var victim *conn
	var since int64
	n := 0
	for c := range s.conns { // in random order
		if idle := c.idle.Load(); idle != 0 && (victim == nil || idle < since) {
			victim, since = c, idle
		}
		if n++; n >= looked && victim != nil {
			break
		}
	}
	if victim == nil {
		return false
	}
	delete(s.conns, victim)
	victim.raw.Close()
	return true
}

// drain ends idle connections at once and busy ones after their call, or after
// the time for that.
func (s *Server) drain(cancel context.CancelFunc) {
	s.mu.Lock()
	for c := range s.conns {
		c.finish()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.wait.Wait()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-time.After(s.limits.Drain):
	}
	cancel()
	s.mu.Lock()
	for c := range s.conns {
		c.raw.Close()
	}
	s.mu.Unlock()
	<-done
}
