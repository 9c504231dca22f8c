// Package launch starts a VCM's process with as much isolation as the kernel
// grants, hands it exactly the declared descriptors, and supervises it.
//
// What was granted is not assumed but told to the process
// (vcmcontrol.Isolation), which proves it by attempts. Below the floor nothing
// is started.
//
// # The forker
//
// A VCM serves on when its orchestrator is killed. Therefore the orchestrator
// does not make the VCMs' processes: a small process does, the forker, which
// leads a life of its own in a session of its own. (It is small for another
// reason, too: where only the runtime can make a child in name spaces, that begins
// as a copy of who makes it; see newborn.) The forker reads no network, runs no
// tenant's code and decides nothing. It keeps for each process what a successor of
// the orchestrator needs: the process, of which it is the parent, the
// orchestrator's end of the control socket, the reading end of what the process
// says, its control group, and how it ended. One thread of it makes the processes,
// with descriptors of its own: see maker.
//
// The next orchestrator of the same folder (Config.Dir) finds the forker at a
// socket there that only its own user can reach. It lists what is kept (Kept),
// takes a process over (Take), and asks it whether it serves (Process.Greet); the
// answer brings the listening sockets back. A VCM notices nothing but that its
// orchestrator was silent for a while.
//
//   - One orchestrator at a time: the forker obeys one connection, and the next
//     only after that has ended. A fence that grows from one orchestrator to the
//     next (the revision of its claim on the unit) keeps an older one out for good.
//   - The calls of two orchestrators on one control socket have different ids,
//     which begin at the fence: a late answer to the one that was killed is
//     nobody's.
//   - A process dies with the forker, at once (its parent-death signal). So there
//     is never one that nobody keeps; the orchestrator starts such VCMs again.
//   - Without an orchestrator the forker goes on for Config.Grace, then ends all
//     it keeps, and itself; so does a SIGTERM. It ends at once when it keeps
//     nothing.
//   - What was being made when somebody was killed ends by itself: a process whose
//     control socket nobody holds, or that is not told to start, does. Processes
//     of a forker that was killed become the orchestrator's, which waits for them.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
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
	// and keeps the processes; with "" they are this one's children and end with it.
	Forker string
	Dir    string        // of the forker's socket, which is how the next launcher finds it
	Fence  int64         // grows from one launcher in Dir to the next
	Grace  time.Duration // of processes that no launcher takes over; 0: for good
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

	processors []uint64 // that VCMs may use; none if their processes are not made on one

	starting sync.Mutex // held while a process is being made

	mu     sync.Mutex
	kept   []Kept
	groups map[string]int // names of control groups in use
	untidy bool           // groups are left that nobody uses
}

// New opens the binary. The caller closes the Launcher. From then on no
// descriptor that this process inherited is passed on to a child by accident.
func New(cfg Config) (*Launcher, error) {
	if os.Args[0] == forkerName { // or each would start the next
		return nil, errkind.Errorf(errkind.Internal, "the main of %s does not begin with ServeForker", cfg.Forker)
	}
	if Below(cfg.Floor, Plain) {
		return nil, errkind.Errorf(errkind.Invalid, "isolation floor %q is none of %v", cfg.Floor, Levels())
	}
	// Named, not read: a program that this user may not read is one whose processes
	// the kernel keeps from him, too, although he owns their user namespaces.
	path, err := unix.Open(cfg.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "VCM program: %w", &os.PathError{Op: "open", Path: cfg.Path, Err: err})
	}
	f := os.NewFile(uintptr(path), cfg.Path)
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
	l := &Launcher{cfg: cfg, binary: os.NewFile(uintptr(fd), cfg.Path), plans: plans(os.Geteuid() == 0), groups: map[string]int{}}
	if l.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		_ = l.binary.Close()
		return nil, errkind.Errorf(errkind.Unavailable, "standard streams: %w", err)
	}
	if err := l.takeOver(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

// release gives back what is not a process.
func (l *Launcher) release() error { return errors.Join(l.binary.Close(), l.null.Close()) }

// Close ends the forker with whatever it still keeps, and lets go of the binary
// and the control groups.
func (l *Launcher) Close() error {
	var err error
	if l.forker != nil {
		err = l.forker.end()
	}
	l.tidy(true)
	return errors.Join(err, l.release(), l.cfg.Cgroups.Close())
}

// Leave lets go of the processes without ending them: the next launcher in the
// folder finds them. A forker that keeps none ends.
func (l *Launcher) Leave() error {
	if l.forker != nil {
		if kept, err := l.forker.kept(context.Background()); err == nil && !slices.ContainsFunc(kept, func(k Kept) bool { return !k.Ended }) {
			return l.Close()
		}
		l.forker.leave()
	}
	return l.release()
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
	made := make(chan Group, 1)
	go func() { made <- weakenGroup(l.group(spec), spec) }()
	c, err := l.channels(ctx, spec)
	group := <-made
	var p *Process
	if err == nil {
		defer c.closeTheirs()
		p, err = l.start(ctx, spec, group, c)
	}
	if err != nil {
		group.Remove()
		return nil, err
	}
	return p, nil
}

func (l *Launcher) start(ctx context.Context, spec Spec, group Group, c channels) (*Process, error) {
	spec.Start.Listeners = nil
	files := []*os.File{c.control, c.device, c.data}
	for i, s := range spec.Sockets {
		files = append(files, s.File)
		spec.Start.Listeners = append(spec.Start.Listeners,
			vcmcontrol.Listener{Service: s.Service, Address: s.Address, FD: vcmcontrol.FirstListenerFD + i})
	}
	here, err := c.here.File() // for the forker, which shares it
	if err != nil {
		_ = c.here.Close()
		return nil, errkind.Errorf(errkind.Unavailable, "control socket of VCM %s: %w", spec.Start.UUID, err)
	}
	defer here.Close()
	b, used, err := l.spawn(spec, group, files, here)
	if err != nil {
		_ = c.here.Close()
		return nil, err
	}
	spec.Start.Isolation = used.isolation(group, l.cfg.Floor)
	p := newProcess(b.child, c.here, group, l)
	go p.run()
	if b.grouped {
		// It never was anywhere else.
	} else if err := group.Add(p.PID()); err != nil {
		// The process waits for Start, so nothing ran without its limits yet.
		l.cfg.Log.Warn("not in its control group", "uuid", spec.Start.UUID, "err", err)
		spec.Start.Isolation.Cgroup = ""
	}
	spec.Start.Processors = l.processors
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
	err := p.conn.Ask(ctx, vcmcontrol.MethodStart, start, nil)
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
