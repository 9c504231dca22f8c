package launch

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// forkerName is the forker's argv[0] and the name of its thread that makes
// children, which they have until they run the binary. Its argument is the folder
// of the orchestrator that it belongs to, for who looks at the host's processes.
const forkerName = "vcm-forker"

// forkerSocket is the listening socket of a forker.
const forkerSocket = 3

// forgotten is how long a forker waits for its first orchestrator.
const forgotten = 30 * time.Second

// ServeForker is the whole life of a forker; in any other process it does
// nothing. A program whose Config names it as Forker calls it first in main.
func ServeForker() {
	if os.Args[0] != forkerName {
		return
	}
	// The kernel counts a process's memory where its first thread is. That stays
	// in the orchestrator's control group; another one visits those of the VCMs.
	runtime.LockOSThread()
	if err := serveForker(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", forkerName, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveForker() error {
	l, err := net.FileListener(os.NewFile(forkerSocket, socketName))
	if err != nil {
		return err
	}
	// Notified rather than ignored: what is ignored stays so in a child. The end of
	// a terminal or of a log's reader is not the end of the VCMs.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	m, err := newMaker()
	if err != nil {
		return err
	}
	k := newKeeper(m)
	go k.accept(l)
	go k.heed(signals)
	k.wait()
	k.clear()
	return nil
}

// accept serves orchestrators of the forker's own user, and root's.
func (k *keeper) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors: processes end
			continue
		}
		uc, ok := c.(*net.UnixConn)
		if !ok || admit(uc) != nil {
			_ = c.Close()
			continue
		}
		go k.serve(uc)
	}
}

// admit checks who is at the other end.
func admit(uc *net.UnixConn) error {
	peer, err := fdrpc.PeerOf(uc)
	if err == nil && peer.UID != 0 && peer.UID != uint32(os.Geteuid()) {
		err = errkind.Errorf(errkind.Unauthorised, "process %d of user %d", peer.PID, peer.UID)
	}
	return err
}

// serve is one connection.
func (k *keeper) serve(uc *net.UnixConn) {
	c := fdrpc.New(uc, k.answer)
	greeted := time.AfterFunc(forkTimeout, func() {
		if !k.obeys(c) {
			_ = c.Close()
		}
	})
	defer greeted.Stop()
	_ = c.Run(context.Background()) // however it ended, the orchestrator is gone
	k.leave(c)
}

func (k *keeper) answer(_ context.Context, c *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
	defer func() {
		for _, f := range r.Files {
			_ = f.Close()
		}
	}()
	if r.Method == methodHello {
		return k.hello(c, r)
	}
	if !k.obeys(c) {
		return fdrpc.Reply{}, errNoMaster
	}
	switch r.Method {
	case methodFork:
		return k.fork(c, r)
	case methodKept:
		var a after
		if err := r.Decode(&a); err != nil {
			return fdrpc.Reply{}, err
		}
		return fdrpc.Reply{Body: k.list(a.ID)}, nil
	case methodTake:
		return k.take(r)
	case methodKill:
		return k.kill(r)
	case methodForget:
		return k.forget(r)
	case methodEnd:
		k.endAll()
		return fdrpc.Reply{Sent: k.quit}, nil
	}
	return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "unknown method %.40q", r.Method)
}

var errNoMaster = errkind.Errorf(errkind.Refused, "another orchestrator has taken over")

// fork has the child made, and remembers it.
func (k *keeper) fork(c *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
	var o order
	if err := r.Decode(&o); err != nil {
		return fdrpc.Reply{}, err
	}
	const kept = 2
	theirs := len(r.Files) - kept
	if theirs <= 0 {
		return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "%d descriptors", len(r.Files))
	}
	keep, err := fdrpc.Descriptors(r.Files[theirs:])
	if err != nil {
		return fdrpc.Reply{}, err
	}
	k.maker.await()
	k.mu.Lock() // until it is remembered nobody may wait for it
	defer k.mu.Unlock()
	if k.master != c || k.ending { // meanwhile
		k.maker.release()
		return fdrpc.Reply{}, errNoMaster
	}
	m, err := k.maker.make(o, r.Files[:theirs])
	if err != nil {
		return fdrpc.Reply{}, err
	}
	if m.Errno != 0 {
		return fdrpc.Reply{Body: m}, nil
	}
	handle, err := unix.PidfdOpen(m.PID, unix.PIDFD_NONBLOCK)
	if err != nil { // nobody could supervise it
		_ = unix.Kill(m.PID, unix.SIGKILL)
		_, _ = unix.Wait4(m.PID, nil, 0, nil)
		return fdrpc.Reply{}, errkind.Errorf(errkind.Unavailable, "%w", os.NewSyscallError("pidfd_open", err))
	}
	m.ID = k.keep(o, m.PID, keep)
	return fdrpc.Reply{Body: m, Files: []*os.File{os.NewFile(uintptr(handle), "process")}}, nil
}
