package launch

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// Process is one started vcmd. Its owner waits for Done.
type Process struct {
	child *child
	conn  *fdrpc.Conn
	group Group
	floor string
	since time.Time
	taken bool        // from a forker that had made it for an earlier orchestrator
	left  atomic.Bool // see Leave

	ready  chan vcmcontrol.Ready  // at most one value
	failed chan vcmcontrol.Failed // at most one value
	done   chan struct{}
	exit   error // valid after done; nil for exit code 0
}

// Final is an error that starting again cannot cure.
type Final struct{ error }

// Unwrap gives errkind the kind.
func (f Final) Unwrap() error { return f.error }

func newProcess(c *child, here *net.UnixConn, g Group, l *Launcher) *Process {
	p := &Process{
		child: c, group: g, floor: l.cfg.Floor, since: time.Now(),
		ready: make(chan vcmcontrol.Ready, 1), failed: make(chan vcmcontrol.Failed, 1), done: make(chan struct{}),
	}
	p.conn = fdrpc.New(here, p.answer).From(l.firstCall())
	return p
}

// run reads the control socket and waits for the process; it ends after both.
func (p *Process) run() {
	defer close(p.done)
	talked := make(chan error, 1)
	go func() { talked <- p.conn.Run(context.Background()) }()
	exited := make(chan error, 1)
	go func() { exited <- p.child.wait() }()
	select {
	case p.exit = <-exited:
		_ = p.conn.Close()
		<-talked
	case <-talked:
		// A process that cannot be told to stop must not go on.
		p.exit = p.reap(exited)
	}
	if !errors.Is(p.exit, errLeft) {
		p.group.Remove()
	}
}

// lingering is how long a process may take to exit after its control socket ended.
const lingering = 5 * time.Second

func (p *Process) reap(exited <-chan error) error {
	if !p.left.Load() {
		p.child.signal(syscall.SIGTERM) // somebody else holds our end of the socket, so that it sees no end
	}
	select {
	case err := <-exited:
		return err
	case <-time.After(lingering):
		p.child.signal(syscall.SIGKILL)
		return <-exited
	}
}

// Leave lets go of the process, which serves on for the next orchestrator.
func (p *Process) Leave() {
	p.left.Store(true)
	p.child.leave()
	<-p.done
}

// answer handles the process's two reports. Repeated ones are refused, except
// that one who asked what an earlier orchestrator was told may hear it twice.
func (p *Process) answer(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
	for _, f := range r.Files {
		_ = f.Close()
	}
	var err error
	switch r.Method {
	case vcmcontrol.MethodReady:
		var v vcmcontrol.Ready
		if err = r.Decode(&v); err == nil {
			if err = offer(p.ready, v); p.taken {
				err = nil
			}
		}
	case vcmcontrol.MethodFailed:
		var v vcmcontrol.Failed
		if err = r.Decode(&v); err == nil {
			err = offer(p.failed, v)
		}
	default:
		err = errkind.Errorf(errkind.Invalid, "unknown method %q", r.Method)
	}
	return fdrpc.Reply{}, err
}

func offer[T any](ch chan T, v T) error {
	select {
	case ch <- v:
		return nil
	default:
		return errkind.Errorf(errkind.Refused, "reported already")
	}
}

// ends waits a moment for the end of a process that closed its control socket.
func (p *Process) ends(ctx context.Context) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(lingering):
	case <-ctx.Done():
	}
	return false
}

// whyEnded is why a process that has ended never was ready: what it said, if it
// did, which may have come together with the end.
func (p *Process) whyEnded() error {
	select {
	case f := <-p.failed:
		return failure(f)
	default:
	}
	return errkind.Errorf(errkind.Unavailable, "the VCM's process ended before it was ready: %s", p.Ending())
}

// Ready waits until the process serves. It fails when the process says so, ends
// or takes longer than ctx; then the process is still to be killed.
func (p *Process) Ready(ctx context.Context) (vcmcontrol.Ready, error) {
	select {
	case r := <-p.ready:
		if Below(r.Level, p.floor) {
			return r, Final{errkind.Errorf(errkind.Refused, "it reached isolation level %s, below the floor %s; lower it with --isolation-floor",
				printable(r.Level), p.floor)}
		}
		return r, nil
	case f := <-p.failed:
		return vcmcontrol.Ready{}, failure(f)
	case <-p.done:
		return vcmcontrol.Ready{}, p.whyEnded()
	case <-ctx.Done():
		return vcmcontrol.Ready{}, errkind.Errorf(errkind.Unavailable, "the VCM was not ready in time: %w", context.Cause(ctx))
	}
}

func failure(f vcmcontrol.Failed) error {
	err := errkind.Errorf(errkind.Parse(f.Kind), "%s", printable(f.Reason))
	// A wrong mode passes: another process may still hold the partition.
	if f.Final && !errkind.Is(err, errkind.Mode) {
		return Final{err}
	}
	return err
}

// printable keeps a VCM's words from breaking a terminal or flooding a record.
func printable(s string) string {
	const most = 500
	b := make([]byte, 0, min(len(s), most))
	for i := 0; i < len(s) && len(b) < most; i++ {
		if c := s[i]; c >= ' ' && c < 0x7f {
			b = append(b, c)
		} else {
			b = append(b, ' ')
		}
	}
	return string(b)
}

// Done is closed when the process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ending says how the process ended, after Done.
func (p *Process) Ending() string {
	if p.exit == nil {
		return "exit code 0"
	}
	return p.exit.Error()
}

// PID returns the process's number.
func (p *Process) PID() int { return p.child.pid }

// Since is when the process was made.
func (p *Process) Since() time.Time { return p.since }

// Stats asks for the live figures.
func (p *Process) Stats(ctx context.Context) (vcmcontrol.Stats, error) {
	var s vcmcontrol.Stats
	return s, p.call(ctx, vcmcontrol.MethodStats, nil, &s)
}

// Mode asks what the tenant's service is doing.
func (p *Process) Mode(ctx context.Context) (vcmcontrol.Mode, error) {
	var m vcmcontrol.Mode
	return m, p.call(ctx, vcmcontrol.MethodMode, nil, &m)
}

// Device hands the process another channel to the unit, which it closes here.
func (p *Process) Device(ctx context.Context, channel *os.File) error {
	defer channel.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return p.conn.Ask(ctx, vcmcontrol.MethodDevice, nil, nil, channel)
}

func (p *Process) call(ctx context.Context, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return p.conn.Ask(ctx, method, in, out)
}

// Stop asks the process to drain and end. The kind Mode means that it declined
// because the tenant's service is operational; it then serves on. Otherwise it
// has ended when Stop returns, by force if need be.
func (p *Process) Stop(ctx context.Context, s vcmcontrol.Stop) error {
	drain := time.Duration(s.Drain) * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, drain+callTimeout)
	defer cancel()
	_, err := p.conn.Call(ctx, vcmcontrol.MethodStop, s, nil)
	if errkind.Is(err, errkind.Mode) && !s.Force {
		return err
	}
	patience := drain + lingering
	if err != nil { // it did not understand or is gone already
		patience = 0
	}
	p.Terminate(patience)
	return nil
}

// Terminate waits patience for the process to end by itself, then sends
// SIGTERM, and SIGKILL when that does not help; it returns after the end.
func (p *Process) Terminate(patience time.Duration) {
	steps := []struct {
		act  func()
		wait time.Duration
	}{
		{func() {}, patience},
		{func() { p.child.signal(syscall.SIGTERM) }, 2 * time.Second},
	}
	for _, s := range steps {
		s.act()
		select {
		case <-p.done:
			return
		case <-time.After(s.wait):
		}
	}
	p.Kill()
}

// Kill ends the process at once and waits for it.
func (p *Process) Kill() {
	p.child.signal(syscall.SIGKILL)
	<-p.done
}

// IsFinal reports whether starting again cannot cure err.
func IsFinal(err error) bool {
	var f Final
	return errors.As(err, &f)
}
