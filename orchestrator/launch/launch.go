// Package launch starts a VCM's process with as much isolation as the kernel
// grants, hands it exactly the declared descriptors, and supervises it.
//
// What was granted is not assumed but told to the process
// (vcmcontrol.Isolation), which proves it by attempts. Below the floor nothing
// is started.
//
// Where a process gets name spaces of its own, a second, small process makes it
// (forker.go): the orchestrator's memory is too large to be copied for each.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// Levels of isolation, strongest first.
const (
	Full     = "full"
	Rootless = "rootless"
	Landlock = "landlock"
	Plain    = "process"
)

// Levels returns the levels, strongest first.
func Levels() []string { return []string{Full, Rootless, Landlock, Plain} }

// Below reports whether level is weaker than floor; an unknown level is.
func Below(level, floor string) bool {
	rank := func(l string) int {
		for i, known := range Levels() {
			if l == known {
				return i
			}
		}
		return len(Levels())
	}
	return rank(level) > rank(floor)
}

// Config is what every VCM's process of a unit has in common.
type Config struct {
	Path    string // of the vcmd binary
	Floor   string // weakest level that may be started
	UIDBase int    // first uid of the unit's range; used as root only
	Cgroups Cgroups
	// Forker is a program whose main calls ServeForker, usually this one. It makes
	// the processes that would otherwise begin as copies of this one; "" makes none so.
	Forker string
	Log    *slog.Logger
}

// Launcher starts processes. It pins the binary it was made with: replacing the
// file takes effect with the next launcher.
type Launcher struct {
	cfg    Config
	binary *os.File
	plans  []plan
	chosen atomic.Int32 // index of the first plan that has not failed yet
	null   *os.File
	forker *forker // nil without

	starting sync.Mutex // held while a process is being made
}

// New opens the binary. The caller closes the Launcher. From then on no
// descriptor that this process inherited is passed on to a child by accident.
func New(cfg Config) (*Launcher, error) {
	if Below(cfg.Floor, Plain) {
		return nil, errkind.Errorf(errkind.Invalid, "isolation floor %q is none of %v", cfg.Floor, Levels())
	}
	f, err := os.Open(cfg.Path)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "VCM program: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return nil, errkind.Errorf(errkind.Invalid, "VCM program %s is not an executable file", cfg.Path)
	}
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "mark descriptors: %w", err)
	}
	fd, err := pin(f)
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "VCM program %s: %w", cfg.Path, err)
	}
	l := &Launcher{cfg: cfg, binary: os.NewFile(uintptr(fd), cfg.Path), plans: plans(os.Geteuid() == 0)}
	if l.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		_ = l.binary.Close()
		return nil, errkind.Errorf(errkind.Unavailable, "standard streams: %w", err)
	}
	if cfg.Forker != "" {
		l.forker = &forker{program: cfg.Forker, binary: l.binary}
	}
	return l, nil
}

// Close lets go of the binary and the control groups, after the last process.
func (l *Launcher) Close() error {
	if l.forker != nil {
		l.forker.Close()
	}
	return errors.Join(l.binary.Close(), l.null.Close(), l.cfg.Cgroups.Close())
}

// Floor returns the weakest level that may be started.
func (l *Launcher) Floor() string { return l.cfg.Floor }

// program is the path under which a child finds the pinned binary, whoever
// owns the folders above it.
func (l *Launcher) program() string { return "/proc/self/fd/" + strconv.Itoa(int(l.binary.Fd())) }

// Limits bound one VCM's use of the host.
type Limits struct {
	Memory    int64 // bytes
	Pids      int
	CPUWeight int // 1 to 10000, 100 is one share
}

// Spec is one VCM's process.
type Spec struct {
	Start   vcmcontrol.Start // Listeners and Isolation are filled in
	DataDir string
	Slot    int
	Sockets []network.Socket
	Limits  Limits
	// Attach hands the unit its end of the device channel.
	Attach func(ctx context.Context, there *os.File) error
}

// Launch starts the process and tells it what it is. The returned process is
// not ready yet; see Process.Ready. The sockets stay open on this side.
func (l *Launcher) Launch(ctx context.Context, spec Spec) (*Process, error) {
	if len(spec.Sockets) == 0 || spec.Attach == nil {
		return nil, errkind.Errorf(errkind.Internal, "launch of VCM %s: sockets or device channel missing", spec.Start.UUID)
	}
	group, err := l.cfg.Cgroups.Make(spec.Start.UUID, spec.Limits)
	if err != nil {
		l.cfg.Log.Warn("no control group", "uuid", spec.Start.UUID, "err", err)
		group = noGroup{}
	}
	group = weakenGroup(group, spec)
	p, err := l.start(ctx, spec, group)
	if err != nil {
		group.Remove()
		return nil, err
	}
	return p, nil
}

func (l *Launcher) start(ctx context.Context, spec Spec, group Group) (*Process, error) {
	c, err := l.channels(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer c.closeTheirs()
	spec.Start.Listeners = nil
	files := []*os.File{c.control, c.device, c.data}
	for i, s := range spec.Sockets {
		files = append(files, s.File)
		spec.Start.Listeners = append(spec.Start.Listeners,
			vcmcontrol.Listener{Service: s.Service, Address: s.Address, FD: vcmcontrol.FirstListenerFD + i})
	}
	b, used, err := l.spawn(spec, group, files)
	if err != nil {
		_ = c.here.Close()
		return nil, err
	}
	spec.Start.Isolation = used.isolation(group, l.cfg.Floor)
	p := newProcess(b.child, c.here, group, l.cfg.Floor)
	if b.grouped {
		// It never was anywhere else.
	} else if err := group.Add(p.PID()); err != nil {
		// The process waits for Start, so nothing ran without its limits yet.
		l.cfg.Log.Warn("not in its control group", "uuid", spec.Start.UUID, "err", err)
		spec.Start.Isolation.Cgroup = ""
	}
	if err := l.tell(ctx, p, spec.Start); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

func (l *Launcher) tell(ctx context.Context, p *Process, start vcmcontrol.Start) error {
	if reachable := reachable(start.Isolation); Below(reachable, l.cfg.Floor) {
		return errkind.Errorf(errkind.Refused, "this host isolates VCMs at level %s at best, below the floor %s; lower it with --isolation-floor", reachable, l.cfg.Floor)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := p.conn.Call(ctx, vcmcontrol.MethodStart, start, nil)
	if err == nil {
		return nil
	}
	if errkind.Is(err, errkind.Unavailable) && p.ends(ctx) {
		err = p.whyEnded()
	}
	return fmt.Errorf("start of VCM %s: %w", start.UUID, err)
}

// callTimeout bounds one call to a process.
const callTimeout = 10 * time.Second
