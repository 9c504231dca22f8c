package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What an orchestrator asks of a forker, over internal/fdrpc.
const (
	// methodHello: hello with the binary -> welcome with a descriptor of the
	// forker's process. First; nothing else is answered without it.
	methodHello = "hello"
	// methodFork: order with the child's descriptors from 0 on, then what is kept of
	// it: our end of its control socket and what it says -> made with a descriptor
	// of the process.
	methodFork = "fork"
	// methodKept: after -> page of kept processes.
	methodKept = "kept"
	// methodTake: which -> nil with the descriptors of the process, our end of its
	// control socket and what it says.
	methodTake = "take"
	// methodKill: which -> nil.
	methodKill = "kill"
	// methodForget: which -> ended, once the process has.
	methodForget = "forget"
	// methodEnd: nil -> nil. The forker ends what is left, and then itself.
	methodEnd = "end"
)

// protocol is the version of all this. A forker of another version is not spoken
// to: it may be older or newer than the program that finds it.
const protocol = 3

// socketName is the forker's socket in the folder of its orchestrator.
const socketName = "forker.sock"

type hello struct {
	Protocol int `json:"protocol"`
	// Fence grows from one orchestrator to the next. A forker obeys none below the
	// highest that it has seen.
	Fence int64         `json:"fence"`
	Grace time.Duration `json:"grace"` // to live on without an orchestrator; 0: for good
}

type welcome struct {
	PID int `json:"pid"`
}

// order is what the forker is to make.
type order struct {
	UUID   string  `json:"uuid"`
	Name   string  `json:"name"` // argv[0]
	Flags  uintptr `json:"flags"`
	OwnUID bool    `json:"ownUid"`
	UID    int     `json:"uid"`
	// NoNewPrivs has the child's program, and what it runs, get no privileges by it.
	NoNewPrivs bool `json:"noNewPrivs"`
	// Enter are the files by which a thread enters the child's control groups,
	// before it makes the child, and Leave those by which it leaves them.
	Enter []string `json:"enter"`
	Leave []string `json:"leave"`
	Place place    `json:"place"`
	// Alone has the child made on one processor, to which it keeps until it is told
	// of the others.
	Alone bool `json:"alone,omitempty"`
}

// place is a control group, for who has to remove it.
type place struct {
	Version string   `json:"version"`
	Dirs    []string `json:"dirs"`
}

// made is the outcome of an order.
type made struct {
	ID    uint64        `json:"id"` // by which the forker knows the process
	PID   int           `json:"pid"`
	Born  bool          `json:"born"` // in its control groups
	Errno syscall.Errno `json:"errno"`
}

type which struct {
	ID uint64 `json:"id"`
}

type ended struct {
	Status syscall.WaitStatus `json:"status"`
}

type after struct {
	ID uint64 `json:"id"`
}

type page struct {
	Kept []Kept `json:"kept"`
	More bool   `json:"more"`
}

// pageSize keeps a page within a packet.
const pageSize = 100

// Kept is a process that an earlier orchestrator left.
type Kept struct {
	ID    uint64    `json:"id"`
	UUID  string    `json:"uuid"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
	Place place     `json:"place"`
	// Ended says that it has ended meanwhile, and Status how.
	Ended  bool               `json:"ended"`
	Status syscall.WaitStatus `json:"status"`
}

// listenIn makes the forker's socket in dir, in place of one that nobody serves.
// The name in the kernel's hands is short however long dir is.
func listenIn(dir string) (*os.File, error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var l *net.UnixListener
	err := reach(dir, func(short string) (err error) {
		l, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
		return err
	})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

func dialIn(dir string) (c *net.UnixConn, err error) {
	err = reach(dir, func(short string) (err error) {
		c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: short, Net: "unixpacket"})
		return err
	})
	return c, err
}

func reach(dir string, fn func(short string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName))
}
