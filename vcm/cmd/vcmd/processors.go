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
// all of them enter the sandbox, and stay. A thread that enters it also waits there
// until the others have done the same, which takes as long as they wait for another
// processor that is busy. Therefore the process is made where it has one processor
// only, and takes the others with its first client.
//
// Timers are as little use to it, and the thread that looks after the runtime's
// processors would wake every 20 µs while there is work, which was a quarter of a
// start's processor time. Therefore the process is also made with timers that may be
// late (vcmcontrol.StartSlack), until then.
type processors struct {
	n     int
	mask  []uint64 // of those that the process was not made on, too; none: it has all
	once  sync.Once
	taken chan struct{} // closed with the first client
}

// alone keeps the runtime to one processor.
func alone() *processors {
	return &processors{n: runtime.GOMAXPROCS(1), taken: make(chan struct{})}
}

// slack is how late a timer may be at work: what Linux begins with.
const slack = 50 * time.Microsecond

// take gives them all to the threads and to the runtime, and has timers be in time.
// Built with cgo, as only tests are, it cannot be done for all threads.
func (p *processors) take() {
	p.once.Do(func() {
		_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0, 0)
		if len(p.mask) > 0 {
			where, size := uintptr(unsafe.Pointer(&p.mask[0])), uintptr(len(p.mask)*8)
			_, _, _ = syscall.AllThreadsSyscall(unix.SYS_SCHED_SETAFFINITY, 0, size, where)
			var now unix.CPUSet
			if unix.SchedGetaffinity(0, &now) == nil {
				p.n = now.Count()
			}
		}
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
