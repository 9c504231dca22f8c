package conductor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Defaults of Config.
const (
	DefaultPort         = 5100
	DefaultMaxSockets   = 64
	DefaultIdleTimeout  = 5 * time.Minute
	DefaultFrameTimeout = 10 * time.Second
	DefaultInFlight     = 32
)

// TraceLevel says how much a server logs about its commands. Key material and
// tokens are never logged.
type TraceLevel int

// The trace levels.
const (
	TraceDefault TraceLevel = iota // connections and internal errors
	TraceVerbose                   // and each command with its status
	TraceDebug                     // and the commands' parameters
)

// ParseTraceLevel reads the name of a trace level.
func ParseTraceLevel(name string) (TraceLevel, error) {
	for i, n := range []string{"Default", "Verbose", "Debug"} {
		if n == name {
			return TraceLevel(i), nil
		}
	}
	return 0, errkind.Errorf(errkind.Invalid, "trace level %q is not Default, Verbose or Debug", name)
}

// Config is what a server needs. A zero field takes its default.
type Config struct {
	Module *tsm.Module
	// MaxSockets is how many connections there may be at once; more are closed.
	MaxSockets int
	// InFlight is how many commands may be in the module at once. The module's
	// vault takes them one after another and lets them share a durable write.
	InFlight     int
	IdleTimeout  time.Duration // between commands
	FrameTimeout time.Duration // from a frame's first byte to its last, and to write an answer
	Trace        TraceLevel
	// RawErrors sends GL!ER without a frame, as some devices do.
	RawErrors bool
	// AllowUnapproved is asked at each SM?KC whether a KMC's public key may be
	// used without a valid approval signature. With nil only a signature that is
	// there must be valid.
	AllowUnapproved func(context.Context) bool
	Log             *slog.Logger
}

// Server answers the commands of any number of sockets and streams with one
// module. Commands wait in one queue; a socket has at most one in it, so that
// none can keep the others out.
type Server struct {
	cfg      Config
	commands map[tsm.Command]command
	slots    chan struct{} // commands in the module
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.MaxSockets == 0 {
		cfg.MaxSockets = DefaultMaxSockets
	}
	if cfg.InFlight == 0 {
		cfg.InFlight = DefaultInFlight
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = DefaultIdleTimeout
	}
	if cfg.FrameTimeout == 0 {
		cfg.FrameTimeout = DefaultFrameTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, commands: commands(), slots: make(chan struct{}, cfg.InFlight)}
}

// Serve answers connections on l until ctx ends; see Server.Serve.
func Serve(ctx context.Context, l net.Listener, cfg Config) error { return New(cfg).Serve(ctx, l) }

// Serve answers connections on l until ctx ends, then closes l and every
// connection and returns nil when all are gone. The module is not touched: a
// server with other settings may follow on another listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	free := make(chan struct{}, s.cfg.MaxSockets)
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("conductor: the listener was closed: %w", err)
		case err != nil:
			s.cfg.Log.Warn("conductor: accept", "error", err)
			if !wait(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		select {
		case free <- struct{}{}:
		default:
			s.cfg.Log.Warn("conductor: too many sockets", "limit", s.cfg.MaxSockets, "peer", conn.RemoteAddr().String())
			_ = conn.Close()
			continue
		}
		conns.Go(func() {
			defer func() { <-free }()
			if err := s.Stream(ctx, conn.RemoteAddr().String(), conn); err != nil {
				s.cfg.Log.Info("conductor: socket closed", "peer", conn.RemoteAddr().String(), "reason", err)
			}
		})
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Stream answers the commands of one socket or one SSH session until the peer
// is done, is idle or slow, or ctx ends, and closes it. It returns nil if the
// peer ended it between two commands.
func (s *Server) Stream(ctx context.Context, peer string, stream io.ReadWriteCloser) (err error) {
	w := newWatch(stream)
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer func() {
		stop()
		w.stop()
		_ = stream.Close()
		if why := w.reason(); why != nil {
			err = why
		} else if ctx.Err() != nil {
			err = nil
		}
	}()
	c := &session{server: s, peer: peer}
	r := bufio.NewReaderSize(stream, 1024)
	var out []byte
	for {
		w.arm(s.cfg.IdleTimeout, "idle for "+s.cfg.IdleTimeout.String())
		first, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		w.arm(s.cfg.FrameTimeout, "a frame took longer than "+s.cfg.FrameTimeout.String())
		f, err := readFrame(first, r)
		if err != nil {
			return err
		}
		w.disarm() // the module takes the time it takes
		line := c.answer(ctx, f.line)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		out = appendFrame(out[:0], f.prefix, line, s.cfg.RawErrors)
		w.arm(s.cfg.FrameTimeout, "the peer did not take a response for "+s.cfg.FrameTimeout.String())
		if _, err := stream.Write(out); err != nil {
			return err
		}
	}
}

// acquire waits for a place in the module, first come, first served.
func (s *Server) acquire(ctx context.Context) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) release() { <-s.slots }
