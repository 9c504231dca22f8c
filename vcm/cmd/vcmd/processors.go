package main

import (
	"context"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processors are those that the process may use once it has something to do.
//
// A start is one thing after the other, and a VCM that nobody uses is no more. On
// more processors it would do no more at a time, but wake threads for each turn:
// all of them enter the sandbox, and stay. Therefore the process is made where it
// has one processor only, keeps the runtime to that when it may use the others,
// and takes those with its first client.
//
// Timers are as little use to it, and the thread that looks after the runtime's
// processors would wake every 20 µs while there is work, which was a quarter of a
// start's processor time. Therefore the process is also made with timers that may be
// late (vcmcontrol.StartSlack), until then.
type processors struct {
	n     int
	once  sync.Once
	taken chan struct{} // closed with the first client
}

// alone keeps the runtime to one processor.
func alone() *processors {
	return &processors{n: runtime.GOMAXPROCS(1), taken: make(chan struct{})}
}

// allow lets the threads run on the processors of mask, 64 a word, instead of the
// one that the process was made on; an empty mask changes nothing.
func (p *processors) allow(mask []uint64) {
	if len(mask) == 0 {
		return
	}
	where, size := uintptr(unsafe.Pointer(&mask[0])), uintptr(len(mask)*8)
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_SCHED_SETAFFINITY, 0, size, where); e != 0 {
		return // built with cgo: it serves as slowly as it is isolated badly
	}
	var now unix.CPUSet
	if unix.SchedGetaffinity(0, &now) == nil {
		p.n = now.Count()
	}
}

// slack is how late a timer may be at work: what Linux begins with.
const slack = 50 * time.Microsecond

// take gives them all to the runtime, and timers that are in time.
func (p *processors) take() {
	p.once.Do(func() {
		// Built with cgo it cannot be done: only tests are.
		_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0, 0)
		runtime.GOMAXPROCS(p.n)
		close(p.taken)
	})
}

// rest waits for the first client, or until nobody waits for this VCM's host any
// more. It is false if ctx ends before.
func (p *processors) rest(ctx context.Context) bool {
	select {
	case <-p.taken:
	case <-time.After(settling):
	case <-ctx.Done():
		return false
	}
	return true
}

// busy is a listener whose first client makes the process take its processors.
type busy struct {
	net.Listener
	processors *processors
}

func (b busy) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err == nil {
		b.processors.take()
	}
	return c, err
}
