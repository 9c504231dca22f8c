package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// plan is one way to start a process.
type plan struct {
	namespaces []string
	flags      uintptr
	ownUID     bool // a uid of the VCM's own
	noNewPrivs bool // where a forker makes the process
}

// plans returns the ways to try, strongest first. As root a user namespace maps
// its root to the VCM's own uid; otherwise to the orchestrator's.
func plans(root bool) []plan {
	const others = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	names := []string{"mnt", "pid", "net", "ipc", "uts"}
	all := append([]string{"user"}, names...)
	if root {
		return []plan{
			{namespaces: all, flags: others | unix.CLONE_NEWUSER, ownUID: true, noNewPrivs: true},
			{namespaces: names, flags: others, ownUID: true},
			{ownUID: true},
			{},
		}
	}
	return []plan{{namespaces: all, flags: others | unix.CLONE_NEWUSER, noNewPrivs: true}, {}}
}

func (p plan) isolation(g Group, floor string) vcmcontrol.Isolation {
	return vcmcontrol.Isolation{Namespaces: slices.Clone(p.namespaces), DistinctUID: p.ownUID, Cgroup: g.Version(), Floor: floor, Outside: outside()}
}

// reachable is the best level that what was set up allows.
func reachable(i vcmcontrol.Isolation) string {
	switch {
	case len(i.Namespaces) < 6:
		return Landlock
	case !i.DistinctUID || i.Cgroup == "":
		return Rootless
	default:
		return Full
	}
}

// attributes are the kernel's view of the plan for a VCM's uid.
func (p plan) attributes(uid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: p.flags, Pdeathsig: syscall.SIGKILL, Setsid: true}
	inUser := p.flags&unix.CLONE_NEWUSER != 0
	switch {
	case inUser && p.ownUID:
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappingsEnableSetgroups = true
		a.Credential = &syscall.Credential{} // root of the namespace, without the groups of ours
	case inUser:
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		a.Credential = &syscall.Credential{NoSetGroups: true}
	case p.ownUID:
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return a
}

// spawn starts the binary by the strongest plan that the kernel takes. A plan
// that failed is not tried again by this launcher.
func (l *Launcher) spawn(spec Spec, g Group, files []*os.File, here *os.File) (born, plan, error) {
	var last error
	for i := int(l.chosen.Load()); i < len(l.plans); i++ {
		p := weaken(l.plans[i], spec)
		if best := reachable(p.isolation(g, "")); Below(best, l.cfg.Floor) {
			if last == nil {
				last = fmt.Errorf("control groups or uids of its own are not to be had")
			}
			return born{}, plan{}, errkind.Errorf(errkind.Refused,
				"VCM %s not started: this host isolates it at level %s at best, below the floor %s (%w); lower it with --isolation-floor",
				spec.Start.UUID, best, l.cfg.Floor, last)
		}
		b, err := l.try(p, spec, g, files, here)
		if err == nil {
			return b, p, nil
		}
		last = err
		if !denied(err) {
			break
		}
		if i+1 < len(l.plans) && l.chosen.CompareAndSwap(int32(i), int32(i+1)) {
			l.cfg.Log.Warn("isolation reduced", "without", p.namespaces, "ownUid", p.ownUID, "err", err)
		}
	}
	return born{}, plan{}, errkind.Errorf(errkind.Unavailable, "start VCM %s: %w", spec.Start.UUID, last)
}

// denied reports whether the kernel refused what was asked for, rather than
// being unable to start any process now.
func denied(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EINVAL, unix.ENOSYS, unix.ENOSPC, unix.EACCES, unix.EUSERS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// born is a process that was just made.
type born struct {
	child   *child
	grouped bool // it is in its control group
}

func (l *Launcher) try(p plan, spec Spec, g Group, files []*os.File, here *os.File) (born, error) {
	uid := os.Geteuid()
	if p.ownUID {
		uid = l.cfg.UIDBase + spec.Slot
	}
	if err := own(spec.DataDir, uid); err != nil {
		return born{}, err
	}
	said, says, err := os.Pipe()
	if err != nil {
		return born{}, err
	}
	defer says.Close()
	c, grouped, err := l.fork(p, uid, spec, g, append([]*os.File{l.null, l.null, says}, files...), here, said)
	if err != nil {
		_ = said.Close()
		return born{}, err
	}
	return born{c, grouped}, nil
}

// programName is the first word of a process's only argument. The VCM follows,
// for who looks at the host's processes; the program does not read it.
const programName = "vcmd"

// fork makes the process. here is our end of its control socket, and said the
// other one of what it says.
func (l *Launcher) fork(p plan, uid int, spec Spec, g Group, files []*os.File, here, said *os.File) (c *child, grouped bool, err error) {
	name := programName + " " + spec.Start.UUID
	to := newWords(l.cfg.Log.With("uuid", spec.Start.UUID))
	if l.forker != nil {
		o := order{UUID: spec.Start.UUID, Name: name, Flags: p.flags, OwnUID: p.ownUID, UID: uid, NoNewPrivs: p.noNewPrivs, Place: place{Version: g.Version(), Dirs: g.Dirs()}, Alone: len(l.processors) > 0}
		o.Enter, o.Leave = g.Visit()
		made, err := l.forker.fork(o, append(files, here, said)...)
		if err != nil {
			return nil, false, err
		}
		status := func() (syscall.WaitStatus, error) { return made.link.status(made.ID, made.PID) }
		return newChild(made.PID, made.handle, status, said, to), made.Born, nil
	}
	// While the runtime writes a child's uid map, the map's descriptor is open
	// without close-on-exec: another child started meanwhile would inherit it.
	l.starting.Lock()
	defer l.starting.Unlock()
	process, err := os.StartProcess(l.program(), []string{name}, &os.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: p.attributes(uid)})
	if err != nil {
		return nil, false, err
	}
	status := func() (syscall.WaitStatus, error) {
		state, err := process.Wait()
		if err != nil {
			return 0, err
		}
		return state.Sys().(syscall.WaitStatus), nil
	}
	h, err := handle(process.Pid)
	if err != nil {
		_ = process.Kill()
		_, _ = process.Wait()
		return nil, false, err
	}
	return newChild(process.Pid, h, status, said, to), false, nil
}

// own gives the data directory to uid, with what is in it. Only root can, and
// only root's VCMs have had other owners before.
func own(dir string, uid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// What changes nothing is a change of the disk all the same.
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err == nil && int(st.Uid) == uid && int(st.Gid) == uid {
			return nil
		}
		return os.Lchown(path, uid, uid)
	})
}

// channels are the descriptors of one process besides its listeners.
type channels struct {
	here                  *net.UnixConn // our end of the control socket
	control, device, data *os.File      // theirs
}

func (c channels) closeTheirs() {
	for _, f := range []*os.File{c.control, c.device, c.data} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// openData opens a VCM's data directory as a mount of its own, where the
// orchestrator has the privilege: from there no path leads to the folders above,
// and the VCM reaches it whoever owns those.
func openData(spec Spec) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, spec.DataDir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	switch {
	case err != nil:
		return os.Open(spec.DataDir)
	case bareData(spec):
		_ = unix.Close(fd)
		return os.Open(spec.DataDir)
	}
	return os.NewFile(uintptr(fd), spec.DataDir), nil
}

// outside are the orchestrator's own namespaces.
func outside() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"ipc", "uts"} {
		if link, err := os.Readlink("/proc/self/ns/" + name); err == nil {
			out[name] = link
		}
	}
	return out
}

func (l *Launcher) channels(ctx context.Context, spec Spec) (c channels, err error) {
	defer func() {
		if err != nil {
			c.closeTheirs()
			if c.here != nil {
				_ = c.here.Close()
			}
		}
	}()
	if err = os.MkdirAll(spec.DataDir, 0o700); err != nil {
		return c, errkind.Errorf(errkind.Unavailable, "data of VCM %s: %w", spec.Start.UUID, err)
	}
	if c.data, err = openData(spec); err != nil {
		return c, errkind.Errorf(errkind.Unavailable, "data of VCM %s: %w", spec.Start.UUID, err)
	}
	if c.here, c.control, err = fdrpc.Pair(); err != nil {
		return c, errkind.Errorf(errkind.Unavailable, "control socket of VCM %s: %w", spec.Start.UUID, err)
	}
	c.device, err = Attach(ctx, spec.Attach)
	return c, err
}

// Attach makes a device channel, hands one end to the unit and returns the
// other, for the VCM.
func Attach(ctx context.Context, attach func(context.Context, *os.File) error) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "device channel: %w", err)
	}
	there := os.NewFile(uintptr(fds[1]), "device-unit")
	defer there.Close() // or the VCM would never see the unit go
	device := os.NewFile(uintptr(fds[0]), "device-vcm")
	if err := attach(ctx, there); err != nil {
		_ = device.Close()
		return nil, fmt.Errorf("device channel: %w", err)
	}
	return device, nil
}
