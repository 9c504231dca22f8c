package main

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// reportTimeout bounds the report of a failure to the orchestrator.
const reportTimeout = 10 * time.Second

// control is the socket to the orchestrator. It may be silent for as long as it
// likes: one that was killed leaves the socket to the next.
type control struct {
	conn    *fdrpc.Conn
	ctx     context.Context
	cancel  context.CancelFunc
	ended   chan struct{} // nobody holds the other end any more, or close was called
	refused chan error    // why the orchestrator did not want what was ready
	owned   sync.WaitGroup

	started order[vcmcontrol.Start]
	stop    order[vcmcontrol.Stop]

	mu     sync.Mutex
	module *module // nil until it serves
}

func openControl(f *os.File) (*control, error) {
	uc, err := fdrpc.FromFile(f)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "control socket: %w; vcmd is started by orchestratord only", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &control{
		ctx: ctx, cancel: cancel, ended: make(chan struct{}), refused: make(chan error, 1),
		started: newOrder[vcmcontrol.Start](), stop: newOrder[vcmcontrol.Stop](),
	}
	c.conn = fdrpc.New(uc, c.handle).Lasting()
	go func() {
		defer close(c.ended)
		_ = c.conn.Run(ctx) // however it ended, there will be no orchestrator any more
	}()
	return c, nil
}

// close ends the socket and waits for its calls.
func (c *control) close() {
	c.cancel()
	<-c.ended
	c.owned.Wait()
}

func (c *control) awaitStart(ctx context.Context) (vcmcontrol.Start, error) {
	select {
	case s := <-c.started.given:
		return s, nil
	case <-c.ended:
		return vcmcontrol.Start{}, errkind.Errorf(errkind.Unavailable, "nobody is left to say what to start")
	case <-ctx.Done():
		return vcmcontrol.Start{}, errkind.Errorf(errkind.Unavailable, "told to end before the start")
	case <-time.After(startTimeout):
		return vcmcontrol.Start{}, errkind.Errorf(errkind.Unavailable, "the orchestrator did not say what to start within %s", startTimeout)
	}
}

// serves lets the orchestrator ask about m.
func (c *control) serves(m *module) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.module = m
}

func (c *control) serving() (*module, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.module == nil {
		return nil, errkind.Errorf(errkind.Unavailable, "the VCM has not started yet")
	}
	return c.module, nil
}

// reportReady says that the VCM serves, without waiting for an answer: one who
// was killed gives none, and his successor asks by himself.
func (c *control) reportReady(r vcmcontrol.Ready) {
	c.owned.Go(func() {
		_, err := c.conn.Call(c.ctx, vcmcontrol.MethodReady, r, nil)
		if err != nil && !errkind.Is(err, errkind.Unavailable) {
			c.refused <- err
		}
	})
}

// reportFailure tells why there will be no VCM. Trying again can help only
// against what may pass by itself.
func (c *control) reportFailure(ctx context.Context, cause error) error {
	kind := errkind.Of(cause)
	return c.report(context.WithoutCancel(ctx), vcmcontrol.MethodFailed, vcmcontrol.Failed{
		Kind: kind.String(), Reason: cause.Error(), Final: kind != errkind.Unavailable && kind != errkind.Internal,
	})
}

func (c *control) report(ctx context.Context, method string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := c.conn.Call(ctx, method, body, nil)
	return err
}

func (c *control) handle(ctx context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
	if r.Method == vcmcontrol.MethodDevice && len(r.Files) == 1 {
		return fdrpc.Reply{}, c.givenDevice(ctx, r.Files[0])
	}
	for _, f := range r.Files {
		_ = f.Close()
	}
	switch r.Method {
	case vcmcontrol.MethodStart:
		var s vcmcontrol.Start
		if err := r.Decode(&s); err != nil {
			return fdrpc.Reply{}, err
		}
		return c.started.take(s, "start")
	case vcmcontrol.MethodHello:
		return c.greeted()
	case vcmcontrol.MethodStats:
		m, err := c.serving()
		if err != nil {
			return fdrpc.Reply{}, err
		}
		return fdrpc.Reply{Body: m.stats()}, nil
	case vcmcontrol.MethodMode:
		m, err := c.serving()
		if err != nil {
			return fdrpc.Reply{}, err
		}
		operational, err := m.operational(ctx)
		if err != nil {
			return fdrpc.Reply{}, err
		}
		finalised, err := m.finalised(ctx)
		return fdrpc.Reply{Body: vcmcontrol.Mode{Operational: operational, Finalised: finalised}}, err
	case vcmcontrol.MethodStop:
		return c.askedToStop(ctx, r)
	default:
		return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "unknown method %q", r.Method)
	}
}

// givenDevice goes on over another device channel.
func (c *control) givenDevice(ctx context.Context, channel *os.File) error {
	m, err := c.serving()
	if err != nil {
		_ = channel.Close()
		return err
	}
	return m.resume(ctx, channel)
}

// greeted answers an orchestrator that has taken the socket over.
func (c *control) greeted() (fdrpc.Reply, error) {
	m, err := c.serving()
	if err != nil {
		return fdrpc.Reply{}, err
	}
	files, err := m.sockets()
	ready := m.ready
	ready.Away = m.unit.away()
	return fdrpc.Reply{Body: ready, Files: files}, err
}

func (c *control) askedToStop(ctx context.Context, r fdrpc.Request) (fdrpc.Reply, error) {
	var s vcmcontrol.Stop
	if err := r.Decode(&s); err != nil {
		return fdrpc.Reply{}, err
	}
	m, err := c.serving()
	if err != nil {
		return fdrpc.Reply{}, err
	}
	if !s.Force {
		operational, err := m.operational(ctx)
		if err != nil {
			return fdrpc.Reply{}, err
		}
		if operational {
			return fdrpc.Reply{}, errkind.Errorf(errkind.Mode, "the tenant's token service is operational: stop it with force, or have the tenant stop vending")
		}
	}
	reply, err := c.stop.take(s, "stop")
	if errkind.Is(err, errkind.Mode) { // perhaps by another orchestrator, who was killed
		return fdrpc.Reply{}, nil
	}
	return reply, err
}

// order is what the orchestrator says once. It is obeyed when the orchestrator
// has its answer: obeying may end the process.
type order[T any] struct {
	given chan T // one at most
	taken *atomic.Bool
}

func newOrder[T any]() order[T] { return order[T]{given: make(chan T, 1), taken: new(atomic.Bool)} }

func (o order[T]) take(v T, what string) (fdrpc.Reply, error) {
	if o.taken.Swap(true) {
		return fdrpc.Reply{}, errkind.Errorf(errkind.Mode, "%s was called before", what)
	}
	return fdrpc.Reply{Sent: func() { o.given <- v }}, nil
}
