package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
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

// forker makes the processes of VCMs for an orchestrator. A child in a user
// namespace begins as a copy of who makes it: of the orchestrator's memory and
// of its thousands of descriptors, or of a small process's. The children are the
// orchestrator's own all the same and do not end with the forker.
//
// One child is made at a time: while the runtime writes a child's uid map, the
// map's descriptor is open without close-on-exec, and another child would
// inherit it.
type forker struct {
	program string   // whose main calls ServeForker first
	binary  *os.File // that children run

	mu      sync.Mutex
	conn    *net.UnixConn // nil while there is no process
	process *os.Process
}

// order is what the forker is to make. The descriptors that come with it become
// the child's, from 0 on.
type order struct {
	Name   string  `json:"name"` // argv[0]
	Flags  uintptr `json:"flags"`
	OwnUID bool    `json:"ownUid"`
	UID    int     `json:"uid"`
	// Enter are the files by which a thread enters the child's control groups,
	// before it makes the child, and Leave those by which it leaves them.
	Enter []string `json:"enter"`
	Leave []string `json:"leave"`
}

// made is the forker's answer.
type made struct {
	PID   int           `json:"pid"`
	Born  bool          `json:"born"` // in its control groups
	Errno syscall.Errno `json:"errno"`
}

const (
	// forkTimeout bounds the making of one child.
	forkTimeout = 10 * time.Second
	// maxOrder is the size of the largest message.
	maxOrder = 8 << 10
)

// fork has a child made.
func (f *forker) fork(o order, files []*os.File) (p *os.Process, born bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, sent, err := f.ask(o, files)
	if err != nil && !sent { // it was killed since the last order
		m, _, err = f.ask(o, files)
	}
	if err != nil {
		return nil, false, errkind.Errorf(errkind.Unavailable, "process that starts processes: %w", err)
	}
	if m.Errno != 0 {
		bury(f.process.Pid)
		return nil, false, os.NewSyscallError("fork", m.Errno)
	}
	p, err = os.FindProcess(m.PID)
	return p, m.Born, err
}

// ask sends one order, to a new process if there is none. Once it is sent nobody
// but the answer tells whether it was carried out. f.mu is held.
func (f *forker) ask(o order, files []*os.File) (m made, sent bool, err error) {
	if f.conn == nil {
		if err := f.start(); err != nil {
			return m, false, err
		}
	}
	defer func() {
		if err != nil {
			f.end()
		}
	}()
	p, err := json.Marshal(o)
	if err != nil || len(p) > maxOrder {
		return m, false, fmt.Errorf("order of %d octets: %w", len(p), err)
	}
	fds := make([]int, len(files))
	for i, file := range files {
		fds[i] = int(file.Fd())
	}
	if err := f.conn.SetDeadline(time.Now().Add(forkTimeout)); err != nil {
		return m, false, err
	}
	if _, _, err := f.conn.WriteMsgUnix(p, unix.UnixRights(fds...), nil); err != nil {
		return m, false, err
	}
	answer := make([]byte, maxOrder)
	n, err := f.conn.Read(answer)
	if err != nil {
		return m, true, err
	}
	err = json.Unmarshal(answer[:n], &m)
	return m, true, err
}

// start starts the process. f.mu is held.
func (f *forker) start() error {
	here, there, err := fdrpc.Pair()
	if err != nil {
		return err
	}
	defer there.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = here.Close()
		return err
	}
	defer null.Close()
	f.process, err = os.StartProcess(f.program, []string{forkerName}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, os.Stderr, there, f.binary},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}, // signals from a terminal are for us
	})
	if err != nil {
		_ = here.Close()
		return err
	}
	f.conn = here
	return nil
}

// end ends the process, whose children live on. f.mu is held.
func (f *forker) end() {
	if f.conn == nil {
		return
	}
	_ = f.conn.Close()
	_ = f.process.Kill()
	_, _ = f.process.Wait()
	f.conn, f.process = nil, nil
}

// Close ends the process.
func (f *forker) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end()
	return nil
}

// bury waits for a child that ended before it ran the binary, about which the
// forker can tell no more than that.
func bury(forker int) {
	const tries, pause = 20, 5 * time.Millisecond
	for range tries {
		lists, _ := filepath.Glob("/proc/self/task/*/children") // where the kernel has none the child stays a zombie
		for _, list := range lists {
			p, _ := os.ReadFile(list)
			for _, word := range strings.Fields(string(p)) {
				if pid, err := strconv.Atoi(word); err == nil && pid != forker && failed(pid) {
					_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
					return
				}
			}
		}
		time.Sleep(pause)
	}
}

// failed reports whether a child has ended and never ran the binary.
func failed(pid int) bool {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(p), "("+forkerName+") Z ")
}

// errNoOrder is the end of orders: the orchestrator is gone.
var errNoOrder = errors.New("no more orders")
