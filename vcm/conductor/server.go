package conductor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Defaults of Config.
const (
	DefaultMaxSockets   = 64
	DefaultIdleTimeout  = 5 * time.Minute
	DefaultFrameTimeout = 10 * time.Second
	DefaultInFlight     = 64
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

func (l TraceLevel) String() string { return traceLevels()[l] }

func traceLevels() []string { return []string{"Default", "Verbose", "Debug"} }

// ParseTraceLevel reads the name of a trace level.
func ParseTraceLevel(name string) (TraceLevel, error) {
	for i, n := range traceLevels() {
		if n == name {
			return TraceLevel(i), nil
		}
	}
	return 0, errkind.Errorf(errkind.Invalid, "trace level %q is not Default, Verbose or Debug", name)
}

// Settings are what may change while a server runs.
type Settings struct {
	// MaxSockets is how many connections there may be at once; more are closed.
	MaxSockets int
	Trace      TraceLevel
	// RawErrors sends GL!ER without a frame, as some devices do.
	RawErrors bool
}

// Config is what a server needs. A zero field takes its default.
type Config struct {
	Module *tsm.Module
	Settings
	// Live, if it is not nil, is asked for the settings at each connection and
	// command.
	Live func() Settings
	// InFlight is how many commands may be in the module at once. The module's
	// vault takes them one after another and lets them share a durable write.
	InFlight     int
	IdleTimeout  time.Duration // between commands
	FrameTimeout time.Duration // from a frame's first byte to its last, and to write an answer
	// AllowUnapproved is asked at each SM?KC whether a KMC's public key may be
	// used without a valid approval signature. With nil only a signature that is
	// there must be valid.
	AllowUnapproved func(context.Context) bool
	// Speed limits issuing commands; nil does not.
	Speed Speed
	// AuditRestart makes an entry of the audit log durable before a restart; nil
	// keeps no log.
	AuditRestart func(ctx context.Context, by string) error
	Clock        clock.Clock
	Log          *slog.Logger
}

// Server answers the commands of any number of sockets and streams with one
// module. Commands wait in one queue; a socket has at most one in it, so that
// none can keep the others out.
type Server struct {
	cfg      Config
	commands map[tsm.Command]command
	slots    chan struct{} // commands in the module
	peers    peers
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
	if cfg.Clock == nil {
		cfg.Clock = clock.System()
	}
	return &Server{cfg: cfg, commands: commands(), slots: make(chan struct{}, cfg.InFlight), peers: peers{since: cfg.Clock.Now()}}
}

func (s *Server) settings() Settings {
	if s.cfg.Live != nil {
		return s.cfg.Live()
	}
	return s.cfg.Settings
}

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
		p, most := &peer{stream: conn}, s.settings().MaxSockets
		if !s.peers.addSocket(p, most) {
			s.cfg.Log.Warn("conductor: too many sockets", "limit", most, "peer", conn.RemoteAddr().String())
			_ = conn.Close()
			continue
		}
		conns.Go(func() {
			defer s.peers.remove(p)
			if err := s.talk(ctx, conn.RemoteAddr().String(), p); err != nil {
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
