package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// forker is the orchestrator's side of the process that makes and keeps the
// processes of VCMs.
type forker struct {
	program string   // whose main calls ServeForker first
	dir     string   // where its socket is
	binary  *os.File // that children run
	hello   hello
	log     *slog.Logger

	mu   sync.Mutex
	link *link // the last one; nil before the first
}

// link is the connection to one forker.
type link struct {
	conn    *fdrpc.Conn
	gone    chan struct{} // closed when the connection is over
	pid     int
	handle  *os.File    // readable after the process's end
	process *os.Process // nil if another orchestrator has started it
}

const (
	// forkTimeout bounds the making of one child. A forker is slow rather than
	// broken, and to give it up would be the end of every VCM.
	forkTimeout = time.Minute
	// askForker bounds all else.
	askForker = 10 * time.Second
	// predecessor is how long the end of an earlier orchestrator may take to be
	// noticed.
	predecessor = 5 * time.Second
	// endTimeout is how long a forker may take to end.
	endTimeout = 2*endPatience + 5*time.Second
)

// errNoForker means that there is none, so that one can be started.
var errNoForker = errors.New("there is no forker")

// find connects to the forker that an earlier orchestrator has left, if any.
func (f *forker) find(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	began := time.Now()
	for {
		l, err := f.greet(ctx)
		patience := endTimeout
		if errkind.Is(err, errkind.Mode) {
			patience = predecessor
		}
		switch {
		case err == nil:
			f.link = l
			return nil
		case errors.Is(err, errNoForker):
			return nil
		case errkind.Is(err, errkind.Invalid):
			return fmt.Errorf("the process that keeps VCMs for %s is of another version of this program: start that version, or end the process with SIGTERM, and its VCMs with it: %w", f.dir, err)
		case !errkind.Is(err, errkind.Mode) && !errkind.Is(err, errkind.Unavailable):
			return fmt.Errorf("the process that keeps VCMs for %s: %w", f.dir, err)
		}
		if time.Since(began) > patience || ctx.Err() != nil {
			return errkind.Errorf(errkind.Unavailable, "the process that keeps VCMs for %s: %w", f.dir, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (f *forker) greet(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, askForker)
	defer cancel()
	return f.connect(ctx)
}

// connect speaks to the forker that listens in the folder.
func (f *forker) connect(ctx context.Context) (*link, error) {
	uc, err := dialIn(f.dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, errNoForker
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "%w", err)
	}
	if err := admit(uc); err != nil {
		_ = uc.Close()
		return nil, err
	}
	l := &link{conn: fdrpc.New(uc, nil), gone: make(chan struct{})}
	go func() {
		defer close(l.gone)
		_ = l.conn.Run(context.Background()) // however it ended, the forker is gone
	}()
	var w welcome
	files, err := l.conn.Call(ctx, methodHello, f.hello, &w, f.binary)
	if err == nil && len(files) != 1 {
		err = errkind.Errorf(errkind.Integrity, "%d descriptors came with its welcome", len(files))
	}
	if err != nil {
		for _, file := range files {
			_ = file.Close()
		}
		_ = l.conn.Close()
		<-l.gone
		return nil, err
	}
	l.pid, l.handle = w.PID, files[0]
	return l, nil
}

// open returns the connection, to a new process if there is none.
func (f *forker) open(ctx context.Context) (*link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.link != nil {
		select {
		case <-f.link.gone:
			f.log.Error("the process that makes and keeps VCMs is gone; every VCM ends with it and is started again", "pid", f.link.pid)
			f.link.bury()
			f.link = nil
		default:
			return f.link, nil
		}
	}
	process, err := f.start()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, forkTimeout)
	defer cancel()
	l, err := f.connect(ctx)
	if err != nil {
		_ = process.Kill()
		_, _ = process.Wait()
		return nil, err
	}
	l.process = process
	f.link = l
	return l, nil
}

// start starts the process, in a session of its own: neither signals from a
// terminal nor our end are for it.
func (f *forker) start() (*os.Process, error) {
	// What it leaves behind, should it be killed, comes to us to be waited for.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	socket, err := listenIn(f.dir)
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return os.StartProcess(f.program, []string{forkerName, f.dir}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, os.Stderr, socket}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

// forked is a process that a forker has made.
type forked struct {
	made
	link   *link
	handle *os.File
}

// fork has a child made.
func (f *forker) fork(o order, files ...*os.File) (p forked, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), forkTimeout)
	defer cancel()
	for range 2 {
		if p.link, err = f.open(ctx); err != nil {
			break
		}
		var got []*os.File
		got, err = p.link.conn.Call(ctx, methodFork, o, &p.made, files...)
		if err == nil && p.Errno != 0 {
			return p, os.NewSyscallError("fork", p.Errno)
		}
		if err == nil && len(got) == 1 {
			p.handle = got[0]
			return p, nil
		}
		for _, file := range got {
			_ = file.Close()
		}
		select {
		case <-p.link.gone: // it was killed, perhaps since the last order
			p.link.buryUnborn(o.Name)
			continue
		default:
		}
		break
	}
	return p, errkind.Errorf(errkind.Unavailable, "process that starts processes: %w", err)
}

// status is how a process ended, after its end.
func (l *link) status(id uint64, pid int) (syscall.WaitStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askForker)
	defer cancel()
	var e ended
	err := l.conn.Ask(ctx, methodForget, which{ID: id}, &e)
	if err == nil {
		return e.Status, nil
	}
	// The forker was killed and the process with it; from there it comes to us.
	if s, ok := reap(pid); ok {
		return s, nil
	}
	return 0, err
}

// reap waits for a process that was, or is about to be, made our child by its
// parent's end.
func reap(pid int) (syscall.WaitStatus, bool) {
	const tries, pause = 100, 5 * time.Millisecond
	for range tries {
		var s syscall.WaitStatus
		if got, err := syscall.Wait4(pid, &s, syscall.WNOHANG, nil); got == pid && err == nil {
			return s, true
		}
		time.Sleep(pause)
	}
	return 0, false
}

// bury waits for a forker that is gone.
func (l *link) bury() {
	if l.process != nil {
		_ = l.process.Kill()
		_, _ = l.process.Wait()
	}
	_ = l.handle.Close()
}

// buryUnborn ends the child that a forker was making when it was killed. It
// has become ours.
func (l *link) buryUnborn(name string) {
	const tries, pause = 20, 5 * time.Millisecond
	for range tries {
		lists, _ := filepath.Glob("/proc/self/task/*/children") // where the kernel has none it ends without its control socket
		for _, list := range lists {
			p, _ := os.ReadFile(list)
			for _, word := range strings.Fields(string(p)) {
				if pid, err := strconv.Atoi(word); err == nil && pid != l.pid && unborn(pid, name) {
					_ = unix.Kill(pid, unix.SIGKILL)
					_, _ = reap(pid)
				}
			}
		}
		time.Sleep(pause)
	}
}

// unborn reports whether a process is one called name, or was to become one: until
// it runs the binary it has the name of the thread that made it.
func unborn(pid int, name string) bool {
	if words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.TrimRight(string(words), "\x00") == name {
		return true
	}
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(p), "("+forkerName+") ")
}

// kept lists what the forker that was found keeps.
func (f *forker) kept(ctx context.Context) (all []Kept, err error) {
	f.mu.Lock()
	l := f.link
	f.mu.Unlock()
	if l == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askForker)
	defer cancel()
	for from := (after{}); ; from.ID = all[len(all)-1].ID {
		var p page
		if err := l.conn.Ask(ctx, methodKept, from, &p); err != nil {
			return nil, err
		}
		if all = append(all, p.Kept...); !p.More {
			return all, nil
		}
	}
}

// let go of the forker, which ends if it keeps nothing.
func (f *forker) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.link == nil {
		return
	}
	_ = f.link.conn.Close()
	<-f.link.gone
	_ = f.link.handle.Close()
	if f.link.process != nil {
		_ = f.link.process.Release()
	}
	f.link = nil
}

// end ends the forker and all that it keeps.
func (f *forker) end() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.link
	if l == nil {
		return nil
	}
	f.link = nil
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	err := l.conn.Ask(ctx, methodEnd, nil, nil)
	select {
	case <-l.gone:
		err = nil
	case <-time.After(askForker):
		_ = unix.Kill(l.pid, unix.SIGKILL)
	}
	_ = l.conn.Close()
	<-l.gone
	if l.process == nil {
		_ = l.handle.SetReadDeadline(time.Now().Add(askForker))
		_ = awaitEnd(l.handle)
	}
	l.bury()
	_ = os.Remove(filepath.Join(f.dir, socketName))
	return err
}
