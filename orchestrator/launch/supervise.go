package launch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

// Policy says how patient supervision is.
type Policy struct {
	Ready    time.Duration // from a start until the process must serve
	First    time.Duration // pause before the second attempt; it doubles
	Last     time.Duration // longest pause
	Again    time.Duration // longest pause after the end of a process that served
	Attempts int           // starts in a row that fail before supervision gives up
	Stable   time.Duration // service that makes earlier failures forgotten
	Drain    time.Duration // for requests in progress when the context ends
}

// DefaultPolicy gives up after about three minutes of starts that fail. A VCM that
// serves is worth starting again however often it is lost.
func DefaultPolicy() Policy {
	return Policy{
		Ready: 60 * time.Second, First: 100 * time.Millisecond, Last: 30 * time.Second, Again: 2 * time.Second,
		Attempts: 14, Stable: time.Minute, Drain: 5 * time.Second,
	}
}

// pause is how long to wait after the n-th failure in a row.
func (p Policy) pause(n int, longest time.Duration) time.Duration {
	wait := p.First
	for i := 1; i < n && wait < longest; i++ {
		wait *= 2
	}
	return min(wait, longest)
}

// Report is what happened to a supervised VCM: Ready, Lost or GiveUp; or Ended,
// which who stopped it reports.
type Report struct {
	Event  lifecycle.Event
	Ready  vcmcontrol.Ready // with Ready
	Reason string           // otherwise
	Err    error            // with GiveUp
	// Finalised, with Ended: the tenant has exported the VCM's audit log.
	Finalised bool
	// Since, with Ready: the process was taken over from an earlier orchestrator,
	// and was made then.
	Since time.Time
}

// Supervisor keeps one VCM's process running until it is stopped or given up.
type Supervisor struct {
	launch func(context.Context) (*Process, error)
	report func(context.Context, Report)
	policy Policy
	log    *slog.Logger
	cancel context.CancelCauseFunc
	done   chan struct{}

	mu       sync.Mutex
	process  *Process // the one that serves, if any
	stopping bool
	planned  bool // the process was told to end in order to be started again
}

// ErrLeave is why the context of a supervisor ends that is to let go of its
// process instead of ending it.
var ErrLeave = errors.New("the processes are left to the next orchestrator")

// errStopped is why a supervisor's context ends when the VCM is stopped.
var errStopped = errors.New("the VCM was stopped")

// Supervise launches the process, launches it again each time it is lost, with
// growing pauses, and reports. When ctx ends the process is drained and ended
// without a report, or left if ErrLeave is why. The owner waits for Done.
func Supervise(ctx context.Context, p Policy, log *slog.Logger, launch func(context.Context) (*Process, error), report func(context.Context, Report)) *Supervisor {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &Supervisor{launch: launch, report: report, policy: p, log: log, cancel: cancel, done: make(chan struct{})}
	go s.run(ctx, nil)
	return s
}

// Resume is Supervise, beginning with a process that was taken over.
func Resume(ctx context.Context, p Policy, log *slog.Logger, first *Process, launch func(context.Context) (*Process, error), report func(context.Context, Report)) *Supervisor {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &Supervisor{launch: launch, report: report, policy: p, log: log, cancel: cancel, done: make(chan struct{})}
	go s.run(ctx, first)
	return s
}

// Done is closed when no process is left and none will be started.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Process returns the process that serves now.
func (s *Supervisor) Process() (*Process, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process, s.process != nil
}

func (s *Supervisor) run(ctx context.Context, first *Process) {
	defer close(s.done)
	defer s.cancel(nil)
	attempts, losses := 0, 0
	for {
		up, err := s.serve(ctx, first)
		first = nil
		if ctx.Err() != nil || s.stopped() {
			return
		}
		reason, wait := "it was restarted", time.Duration(0)
		if err != nil { // nil after a planned restart
			reason = err.Error()
			if up > 0 {
				if attempts = 0; up >= s.policy.Stable {
					losses = 0
				}
				losses++
				wait = s.policy.pause(losses, s.policy.Again)
			} else {
				attempts++
				wait = s.policy.pause(attempts, s.policy.Last)
			}
			if hopeless(err) || attempts >= s.policy.Attempts {
				s.report(ctx, Report{Event: lifecycle.GiveUp, Reason: reason, Err: err})
				return
			}
			s.log.Warn("VCM lost", "reason", reason, "attempts", attempts, "losses", losses, "wait", wait)
		}
		s.report(ctx, Report{Event: lifecycle.Lost, Reason: reason})
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// hopeless reports whether trying again cannot help: only what is unavailable,
// unexplained or in a wrong mode passes by itself.
func hopeless(err error) bool {
	switch errkind.Of(err) {
	case errkind.Unavailable, errkind.Internal, errkind.Mode:
		return IsFinal(err)
	default:
		return true
	}
}

// serve runs one process to its end and says how long it served.
func (s *Supervisor) serve(ctx context.Context, p *Process) (up time.Duration, err error) {
	if p == nil {
		if p, err = s.launch(ctx); err != nil {
			return 0, err
		}
	}
	ready, err := s.await(ctx, p)
	if err != nil {
		letGo(ctx, p, p.Kill)
		return 0, err
	}
	if !s.adopt(p) {
		p.Kill()
		return 0, errStopped
	}
	r := Report{Event: lifecycle.Ready, Ready: ready}
	if p.taken {
		r.Since = p.since
	}
	began := time.Now()
	s.report(ctx, r)
	select {
	case <-p.Done():
	case <-ctx.Done():
		letGo(ctx, p, func() {
			// The context is over, its values and our patience are not.
			_ = p.Stop(context.WithoutCancel(ctx), vcmcontrol.Stop{Force: true, Drain: s.policy.Drain.Milliseconds()})
		})
	}
	if s.release() {
		return time.Since(began), nil
	}
	return time.Since(began), errkind.Errorf(errkind.Unavailable, "the process ended: %s", p.Ending())
}

// letGo ends a process, or leaves it if that is why the context is over.
func letGo(ctx context.Context, p *Process, end func()) {
	if errors.Is(context.Cause(ctx), ErrLeave) {
		p.Leave()
		return
	}
	end()
}

func (s *Supervisor) await(ctx context.Context, p *Process) (vcmcontrol.Ready, error) {
	ctx, cancel := context.WithTimeout(ctx, s.policy.Ready)
	defer cancel()
	return p.Ready(ctx)
}

func (s *Supervisor) adopt(p *Process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.process, s.planned = p, false
	return true
}

func (s *Supervisor) release() (planned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = nil
	return s.planned
}

func (s *Supervisor) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// Stop ends the VCM's process and supervision. The kind Mode means that the VCM
// declined because its tenant's service is operational, and serves on.
func (s *Supervisor) Stop(ctx context.Context, how vcmcontrol.Stop) error {
	s.mu.Lock()
	s.stopping = true
	p := s.process
	s.mu.Unlock()
	if p != nil {
		if err := p.Stop(ctx, how); err != nil {
			s.mu.Lock()
			s.stopping = false
			s.mu.Unlock()
			return err
		}
	}
	s.cancel(errStopped)
	<-s.done
	return nil
}

// Restart drains and ends the process that serves now; supervision launches
// another at once.
func (s *Supervisor) Restart(ctx context.Context, drain time.Duration) error {
	s.mu.Lock()
	p := s.process
	s.planned = p != nil
	s.mu.Unlock()
	if p == nil {
		return nil // one is being started anyway
	}
	return p.Stop(ctx, vcmcontrol.Stop{Force: true, Drain: drain.Milliseconds()})
}
