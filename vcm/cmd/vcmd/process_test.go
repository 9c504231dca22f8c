package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// starting is held while a process is made: what syscall opens to write the
// new one's identity maps is not closed in another that is made meanwhile.
var starting sync.Mutex

// process is a started vcmd.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	here   *net.UnixConn
	conn   *fdrpc.Conn
	ready  chan vcmcontrol.Ready
	failed chan vcmcontrol.Failed
	exited chan struct{}
	err    error // valid after exited
	stderr *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// launch starts vcmd and tells it r.start.
func (r *rig) launch() *process {
	t := r.t
	t.Helper()
	p := r.spawn()
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodStart, r.start, nil); err != nil {
		<-p.exited
		t.Fatalf("start: %v\n%s", err, p.stderr)
	}
	return p
}

// spawn starts vcmd, which waits to be told. extra descriptors follow the listeners.
func (r *rig) spawn(extra ...*os.File) *process {
	t := r.t
	t.Helper()
	here, there, err := fdrpc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	deviceEnd, unitEnd := os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "unit")
	r.attach(unitEnd)
	dir, err := os.Open(r.data)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		t: t, ready: make(chan vcmcontrol.Ready, 1), failed: make(chan vcmcontrol.Failed, 1), exited: make(chan struct{}), stderr: &safeBuffer{},
	}
	attr := r.attr
	attr.Pdeathsig = syscall.SIGKILL
	p.cmd = &exec.Cmd{
		Path: vcmd, Args: []string{"vcmd"}, Env: []string{}, Dir: "/", Stderr: p.stderr, SysProcAttr: &attr,
		ExtraFiles: append(append([]*os.File{there, deviceEnd, dir}, r.sockets...), extra...),
	}
	p.here, p.conn = here, fdrpc.New(here, p.answer)
	starting.Lock()
	err = p.cmd.Start()
	starting.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{there, deviceEnd, unitEnd, dir} {
		f.Close()
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.conn.Run(context.Background()) })
	go func() { p.err = p.cmd.Wait(); close(p.exited) }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		_ = p.conn.Close()
		wg.Wait()
		if t.Failed() {
			t.Logf("vcmd said:\n%s", p.stderr)
		}
	})
	return p
}

// keep is our end of the control socket, for after the orchestrator's end.
func (p *process) keep() *os.File {
	p.t.Helper()
	f, err := p.here.File()
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

// takeOver is another orchestrator, whose calls have ids beyond first.
func (p *process) takeOver(kept *os.File, first uint64) *fdrpc.Conn {
	p.t.Helper()
	uc, err := fdrpc.FromFile(kept)
	if err != nil {
		p.t.Fatal(err)
	}
	c := fdrpc.New(uc, func(context.Context, *fdrpc.Conn, fdrpc.Request) (fdrpc.Reply, error) { return fdrpc.Reply{}, nil }).From(first)
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(context.Background()) }()
	p.t.Cleanup(func() { c.Close(); <-done })
	return c
}

// attach hands the unit its end, once it has noticed that the last VCM is gone.
func (r *rig) attach(end *os.File) {
	r.t.Helper()
	for range 500 {
		err := r.unit.Attach(r.t.Context(), hsmapi.Attach{UUID: testUUID, Speed: r.speed}, end)
		if err == nil {
			return
		}
		if !errkind.Is(err, errkind.Mode) && !errkind.Is(err, errkind.Refused) && !errkind.Is(err, errkind.Unavailable) {
			r.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatal("the unit keeps the partition")
}

func (p *process) answer(_ context.Context, _ *fdrpc.Conn, q fdrpc.Request) (fdrpc.Reply, error) {
	switch q.Method {
	case vcmcontrol.MethodReady:
		var v vcmcontrol.Ready
		if err := q.Decode(&v); err != nil {
			return fdrpc.Reply{}, err
		}
		p.ready <- v
	case vcmcontrol.MethodFailed:
		var v vcmcontrol.Failed
		if err := q.Decode(&v); err != nil {
			return fdrpc.Reply{}, err
		}
		p.failed <- v
	}
	return fdrpc.Reply{}, nil
}

// mustBeReady waits until the VCM serves.
func (p *process) mustBeReady() vcmcontrol.Ready {
	p.t.Helper()
	select {
	case r := <-p.ready:
		return r
	case f := <-p.failed:
		p.t.Fatalf("the VCM failed: %+v", f)
	case <-p.exited:
		p.t.Fatalf("vcmd ended: %v\n%s", p.err, p.stderr)
	case <-time.After(30 * time.Second):
		p.t.Fatal("the VCM was not ready in time")
	}
	return vcmcontrol.Ready{}
}

// mustFail waits until the VCM reports a failure and ends.
func (p *process) mustFail() vcmcontrol.Failed {
	p.t.Helper()
	select {
	case f := <-p.failed:
		p.waitExit()
		return f
	case <-p.ready:
		p.t.Fatal("the VCM started")
	case <-p.exited:
		select {
		case f := <-p.failed:
			return f
		default:
			p.t.Fatalf("vcmd ended without a report: %v\n%s", p.err, p.stderr)
		}
	case <-time.After(30 * time.Second):
		p.t.Fatal("the VCM did not fail in time")
	}
	return vcmcontrol.Failed{}
}

func (p *process) waitExit() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.t.Fatal("vcmd did not end")
	}
	var e *exec.ExitError
	if errors.As(p.err, &e) {
		return e.ExitCode()
	}
	if p.err != nil {
		p.t.Fatal(p.err)
	}
	return 0
}

func (p *process) stop(s vcmcontrol.Stop) {
	p.t.Helper()
	if _, err := p.conn.Call(p.t.Context(), vcmcontrol.MethodStop, s, nil); err != nil {
		p.t.Fatalf("stop: %v", err)
	}
	if code := p.waitExit(); code != 0 {
		p.t.Fatalf("vcmd ended with %d\n%s", code, p.stderr)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

func (p *process) mustBeReadyAndStop() {
	p.t.Helper()
	p.mustBeReady()
	p.stop(vcmcontrol.Stop{Drain: 2000})
}
