package device

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

const (
	// maxConns is how many connections of the platform are served at once.
	maxConns = 16
	// saveClock is how often the clock's memory is stored.
	saveClock = time.Minute
)

// server is one Serve.
type server struct {
	u  *Unit
	wg sync.WaitGroup
}

// Serve answers the platform on l, and every VCM whose channel the platform
// hands over, until the context ends. It closes l and returns after everything
// it started has ended. Only the unit's own user and root are served.
func (u *Unit) Serve(ctx context.Context, l *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{u: u}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	watch, err := watchTamper(u.cfg.Dir)
	if err != nil {
		cancel()
		stop()
		return errors.Join(err, l.Close())
	}
	s.wg.Go(func() { s.watchTamper(watch) })
	s.wg.Go(func() { s.keepClock(ctx) })
	err = s.accept(ctx, l)
	cancel()
	stop()
	_ = watch.Close()
	s.wg.Wait()
	_ = l.Close()
	return err
}

func (s *server) accept(ctx context.Context, l *net.UnixListener) error {
	slots := make(chan struct{}, maxConns)
	for {
		uc, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = uc.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("the unit's socket was closed: %w", err)
			}
			s.u.cfg.Log.WarnContext(ctx, "accept", "error", err)
			pause(ctx, 100*time.Millisecond) // out of descriptors: others will close some
			continue
		}
		if err := s.admit(uc); err != nil {
			s.u.cfg.Log.WarnContext(ctx, "connection refused", "error", err)
			_ = uc.Close()
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			s.u.cfg.Log.WarnContext(ctx, "connection refused: too many", "limit", maxConns)
			_ = uc.Close()
			continue
		}
		s.wg.Go(func() {
			defer func() { <-slots }()
			if err := fdrpc.New(uc, s.handler(ctx)).Run(ctx); err != nil && ctx.Err() == nil {
				s.u.cfg.Log.WarnContext(ctx, "platform connection broke", "error", err)
			}
		})
	}
}

// admit checks who connected.
func (s *server) admit(uc *net.UnixConn) error {
	peer, err := fdrpc.PeerOf(uc)
	if err != nil {
		return err
	}
	if !mayUse(peer.UID, uint32(os.Getuid())) {
		return errkind.Errorf(errkind.Unauthorised, "process %d of user %d may not use the unit", peer.PID, peer.UID)
	}
	return nil
}

// mayUse says who is served by a unit of user owner.
func mayUse(uid, owner uint32) bool { return uid == 0 || uid == owner }

// handler answers the platform. base outlives one connection: VCM channels run under it.
func (s *server) handler(base context.Context) fdrpc.Handler {
	u := s.u
	return func(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
		if r.Method == hsmapi.MethodAttach {
			return fdrpc.Reply{}, s.attach(base, r)
		}
		refuseFiles(r.Files)
		if r.Method == hsmapi.MethodIdentity {
			return fdrpc.Reply{Body: u.Identity()}, nil
		}
		if err := u.working(); err != nil {
			return fdrpc.Reply{}, err
		}
		switch r.Method {
		case hsmapi.MethodCreate:
			return decoded(r, u.Create)
		case hsmapi.MethodProtect:
			return decoded(r, u.Protect)
		case hsmapi.MethodDestroy:
			return decoded(r, func(in hsmapi.Destroy) (any, error) { return nil, u.Destroy(in.UUID) })
		case hsmapi.MethodPartitions:
			return decoded(r, u.Partitions)
		case hsmapi.MethodSign:
			return decoded(r, u.Sign)
		case hsmapi.MethodCertifyHosts:
			return decoded(r, func(in hsmapi.CertifyHosts) (hsmapi.HostCertificates, error) { return u.CertifyHosts("", in) })
		case hsmapi.MethodTime:
			return fdrpc.Reply{Body: u.Time()}, nil
		case hsmapi.MethodSetTime:
			return decoded(r, u.SetTime)
		case hsmapi.MethodFactory:
			return fdrpc.Reply{}, u.Factory()
		}
		return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "unknown method %.40q", r.Method)
	}
}

func (s *server) attach(base context.Context, r fdrpc.Request) error {
	var in hsmapi.Attach
	err := r.Decode(&in)
	if err == nil && len(r.Files) != 1 {
		err = errkind.Errorf(errkind.Invalid, "attach needs one descriptor, not %d", len(r.Files))
	}
	if err != nil {
		refuseFiles(r.Files)
		return err
	}
	ch, err := s.u.attach(in, r.Files[0])
	if err != nil {
		return err
	}
	s.wg.Go(func() { ch.run(base) })
	return nil
}

// working returns why the unit does not work, nil if it does.
func (u *Unit) working() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ready()
}

// keepClock stores now and then what time it is.
func (s *server) keepClock(ctx context.Context) {
	t := time.NewTicker(saveClock)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := s.u.rtc.save(); err != nil {
				s.u.cfg.Log.WarnContext(ctx, "clock", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// watchTamper returns a descriptor that becomes readable when the folder's
// entries change.
func watchTamper(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch for tamper events: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("watch %s for tamper events: %w", dir, err)
	}
	return f, nil
}

// watchTamper ends when the descriptor is closed.
func (s *server) watchTamper(f *os.File) {
	buf := make([]byte, 4096)
	for {
		if exists(s.u.tamperMarker()) {
			s.u.tamperEvent()
		}
		if _, err := f.Read(buf); err != nil {
			return
		}
	}
}

// decoded calls fn with the request's body.
func decoded[In, Out any](r fdrpc.Request, fn func(In) (Out, error)) (fdrpc.Reply, error) {
	var in In
	if err := r.Decode(&in); err != nil {
		return fdrpc.Reply{}, err
	}
	out, err := fn(in)
	return fdrpc.Reply{Body: out}, err
}

// refuseFiles closes descriptors that came with a call that takes none.
func refuseFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
