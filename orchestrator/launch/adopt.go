package launch

import (
	"context"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// callsPerFence is how many calls on one control socket an orchestrator can make
// before its ids are those of the next one.
const callsPerFence = 1 << 28

func (l *Launcher) firstCall() uint64 { return uint64(l.cfg.Fence) * callsPerFence }

// takeOver finds what an earlier launcher in the folder has left.
func (l *Launcher) takeOver() error {
	if l.cfg.Forker == "" {
		l.tidy(true)
		return nil
	}
	l.processors = usable() // a forker makes a child on one of them
	l.forker = &forker{
		program: l.cfg.Forker, dir: l.cfg.Dir, binary: l.binary, log: l.cfg.Log,
		hello: hello{Protocol: protocol, Fence: l.cfg.Fence, Grace: l.cfg.Grace},
	}
	err := l.forker.find(context.Background())
	if err == nil {
		l.kept, err = l.forker.kept(context.Background())
	}
	if err != nil {
		return err
	}
	for _, k := range l.kept {
		l.groups[k.UUID]++
	}
	l.tidy(true)
	return nil
}

// Kept are the processes that an earlier launcher left, also those that have
// ended since, and that were not taken yet.
func (l *Launcher) Kept() []Kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.kept)
}

// Ending says how a process ended that was not taken over in time.
func (k Kept) Ending() string {
	if k.Status == 0 {
		return "exit code 0"
	}
	return exitError(k.Status).Error()
}

// Take takes a process over, whatever it is doing. Of one that has ended only the
// traces are removed; the kind of the error is then NotFound. One that cannot be
// taken is killed.
func (l *Launcher) Take(ctx context.Context, k Kept) (*Process, error) {
	l.mu.Lock()
	known := len(l.kept)
	l.kept = slices.DeleteFunc(l.kept, func(o Kept) bool { return o.ID == k.ID })
	found := len(l.kept) < known
	l.mu.Unlock()
	if !found {
		return nil, errkind.Errorf(errkind.NotFound, "process %d of VCM %s is not kept", k.PID, k.UUID)
	}
	link, err := l.forker.open(ctx)
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "process that keeps processes: %w", err)
	}
	g := l.inUse(k.UUID, l.cfg.Cgroups.Adopt(k.UUID, k.Place.Version, k.Place.Dirs))
	ctx, cancel := context.WithTimeout(ctx, askForker)
	defer cancel()
	files, err := link.conn.Call(ctx, methodTake, which{ID: k.ID}, nil)
	if err == nil && len(files) != 3 {
		err = errkind.Errorf(errkind.Integrity, "%d descriptors of process %d instead of 3", len(files), k.PID)
	}
	var here *net.UnixConn
	if err == nil {
		here, err = fdrpc.FromFile(files[1])
	}
	l.unuse(k.UUID) // what Kept was counted for
	status := func() (syscall.WaitStatus, error) { return link.status(k.ID, k.PID) }
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		if !errkind.Is(err, errkind.NotFound) { // nobody could supervise it
			_ = link.conn.Ask(ctx, methodKill, which{ID: k.ID}, nil)
		}
		_, _ = status()
		g.Remove()
		return nil, err
	}
	c := newChild(k.PID, files[0], status, files[2], newWords(l.cfg.Log.With("uuid", k.UUID)))
	p := newProcess(c, here, g, l)
	p.since, p.taken = k.Since, true
	go p.run()
	return p, nil
}

// Greet asks a process that was taken over whether it serves. If so it returns
// its sockets, which must be those wanted, and Ready will not wait; away says that it
// waits for another device channel. A process that does not serve is still to be
// killed.
func (p *Process) Greet(ctx context.Context, want []network.Socket) (have []network.Socket, away bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var r vcmcontrol.Ready
	files, err := p.conn.Call(ctx, vcmcontrol.MethodHello, nil, &r)
	if err == nil && len(files) != len(want) {
		err = errkind.Errorf(errkind.Integrity, "%d listeners instead of %d", len(files), len(want))
	}
	for i, f := range files {
		if err == nil {
			err = listensAt(f, want[i].Address)
		}
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, false, err
	}
	have = slices.Clone(want)
	for i, f := range files {
		have[i].File = f
	}
	_ = offer(p.ready, r) // or it has come by itself
	return have, r.Away, nil
}

// listensAt checks what a VCM calls its listener: it is a tenant's program, which
// cannot make sockets, but has several.
func listensAt(f *os.File, address string) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	wrong := errkind.Errorf(errkind.Integrity, "a descriptor is not the listener of %s", address)
	var checkErr error
	err = raw.Control(func(fd uintptr) {
		listens, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		at, nameErr := unix.Getsockname(int(fd))
		if err != nil || nameErr != nil || listens != 1 || socketAddress(at) != address {
			checkErr = wrong
		}
	})
	if err == nil {
		err = checkErr
	}
	return err
}

func socketAddress(at unix.Sockaddr) string {
	switch a := at.(type) {
	case *unix.SockaddrInet4:
		return (&net.TCPAddr{IP: a.Addr[:], Port: a.Port}).String()
	case *unix.SockaddrInet6:
		return (&net.TCPAddr{IP: a.Addr[:], Port: a.Port}).String()
	default:
		return ""
	}
}
