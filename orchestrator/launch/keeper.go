package launch

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// keeper is what a forker knows.
type keeper struct {
	maker *maker
	over  chan struct{}
	once  sync.Once

	mu     sync.Mutex
	fence  int64
	grace  time.Duration
	master *fdrpc.Conn // the orchestrator that is obeyed, nil while there is none
	alone  *time.Timer // ends all when it has been away for too long
	ending bool
	last   uint64
	kept   map[uint64]*held
	ids    map[int]uint64  // of those that have not ended
	bases  map[string]bool // folders of control groups' folders
}

// held is one process.
type held struct {
	Kept
	control, said int // descriptors; -1 once it has ended
}

func newKeeper(m *maker) *keeper {
	k := &keeper{maker: m, over: make(chan struct{}), kept: map[uint64]*held{}, ids: map[int]uint64{}, bases: map[string]bool{}}
	k.alone = time.AfterFunc(forgotten, k.endAlone)
	return k
}

// wait returns when the forker is to end.
func (k *keeper) wait() { <-k.over }

func (k *keeper) quit() { k.once.Do(func() { close(k.over) }) }

// hello takes c as the orchestrator, if there is no other and none after it was
// here before.
func (k *keeper) hello(c *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
	var h hello
	if err := r.Decode(&h); err != nil {
		return fdrpc.Reply{}, err
	}
	if h.Protocol != protocol || len(r.Files) != 1 {
		return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "a forker speaks version %d of its protocol, not %d", protocol, h.Protocol)
	}
	k.maker.await()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.welcomes(h); err != nil {
		k.maker.release()
		return fdrpc.Reply{}, err
	}
	if err := k.maker.use(r.Files[0]); err != nil {
		return fdrpc.Reply{}, errkind.Errorf(errkind.Unavailable, "VCM program: %w", err)
	}
	self, err := unix.PidfdOpen(os.Getpid(), unix.PIDFD_NONBLOCK)
	if err != nil {
		return fdrpc.Reply{}, errkind.Errorf(errkind.Unavailable, "%w", os.NewSyscallError("pidfd_open", err))
	}
	k.alone.Stop()
	k.master, k.fence, k.grace = c, h.Fence, h.Grace
	return fdrpc.Reply{Body: welcome{PID: os.Getpid()}, Files: []*os.File{os.NewFile(uintptr(self), "forker")}}, nil
}

// welcomes says why an orchestrator cannot be taken now. k.mu is held.
func (k *keeper) welcomes(h hello) error {
	switch {
	case k.ending:
		return errkind.Errorf(errkind.Unavailable, "the forker is ending")
	case h.Fence < k.fence:
		return errkind.Errorf(errkind.Refused, "a later orchestrator (%d) was here before this one (%d)", k.fence, h.Fence)
	case k.master != nil:
		return errkind.Errorf(errkind.Mode, "another orchestrator is here")
	}
	return nil
}

func (k *keeper) obeys(c *fdrpc.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.master == c
}

// leave notes that c is gone. Without an orchestrator and without processes there
// is nothing to keep.
func (k *keeper) leave(c *fdrpc.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.master != c {
		return
	}
	k.master = nil
	if k.grace > 0 && !k.ending {
		k.alone = time.AfterFunc(k.grace, k.endAlone)
	}
	go k.skimAll()
	k.nothingLeft()
}

// nothingLeft ends a forker that is of no use. k.mu is held.
func (k *keeper) nothingLeft() {
	if k.master == nil && len(k.ids) == 0 && !k.ending {
		k.quit()
	}
}

// keep remembers a process. Its descriptors are duplicated as bare numbers: the
// runtime would wake up whenever something is sent on them. k.mu is held.
func (k *keeper) keep(o order, pid int, files []int) uint64 {
	for i, fd := range files {
		if d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, low); err == nil {
			files[i] = d
		} else {
			files[i] = -1 // a successor will not be able to take it over, and end it
		}
	}
	k.last++
	k.kept[k.last] = &held{
		Kept:    Kept{ID: k.last, UUID: o.UUID, PID: pid, Since: time.Now(), Place: o.Place},
		control: files[0], said: files[1],
	}
	k.ids[pid] = k.last
	for _, dir := range o.Place.Dirs {
		k.bases[filepath.Dir(dir)] = true
	}
	return k.last
}

// list are the processes after id.
func (k *keeper) list(id uint64) (p page) {
	k.reap() // the signal may come later
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.SortedFunc(maps.Values(k.kept), func(a, b *held) int { return cmp.Compare(a.ID, b.ID) })
	for _, h := range all {
		switch {
		case h.ID <= id:
		case len(p.Kept) == pageSize:
			p.More = true
			return p
		default:
			p.Kept = append(p.Kept, h.Kept)
		}
	}
	return p
}

// find returns a process that is kept. k.mu is held.
func (k *keeper) find(r fdrpc.Request) (*held, error) {
	var w which
	if err := r.Decode(&w); err != nil {
		return nil, err
	}
	h, ok := k.kept[w.ID]
	if !ok {
		return nil, errkind.Errorf(errkind.NotFound, "no process %d", w.ID)
	}
	return h, nil
}

// take gives the descriptors of a process to an orchestrator that did not have it
// made.
func (k *keeper) take(r fdrpc.Request) (fdrpc.Reply, error) {
	k.reap()
	k.mu.Lock()
	defer k.mu.Unlock()
	h, err := k.find(r)
	if err == nil && h.Ended {
		err = errkind.Errorf(errkind.NotFound, "process %d has ended", h.PID)
	}
	if err != nil {
		return fdrpc.Reply{}, err
	}
	var files []*os.File
	handle, err := unix.PidfdOpen(h.PID, unix.PIDFD_NONBLOCK)
	if err == nil {
		files = append(files, os.NewFile(uintptr(handle), "process"))
		for _, fd := range []int{h.control, h.said} {
			if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, low); err != nil {
				break
			}
			files = append(files, os.NewFile(uintptr(fd), "kept"))
		}
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return fdrpc.Reply{}, errkind.Errorf(errkind.Unavailable, "process %d: %w", h.PID, err)
	}
	return fdrpc.Reply{Files: files}, nil
}

// kill ends a process that cannot be taken.
func (k *keeper) kill(r fdrpc.Request) (fdrpc.Reply, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, err := k.find(r)
	if err == nil && !h.Ended { // not waited for, so the number is still its
		err = unix.Kill(h.PID, unix.SIGKILL)
	}
	return fdrpc.Reply{}, err
}

// forget drops a process that has ended and says how.
func (k *keeper) forget(r fdrpc.Request) (fdrpc.Reply, error) {
	k.reap()
	k.mu.Lock()
	defer k.mu.Unlock()
	h, err := k.find(r)
	if err == nil && !h.Ended {
		err = errkind.Errorf(errkind.Mode, "process %d has not ended", h.PID)
	}
	if err != nil {
		return fdrpc.Reply{}, err
	}
	delete(k.kept, h.ID)
	return fdrpc.Reply{Body: ended{Status: h.Status}}, nil
}

// reap waits for the processes that have ended.
func (k *keeper) reap() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if pid <= 0 || err != nil {
			break
		}
		h, ok := k.kept[k.ids[pid]]
		if !ok {
			continue
		}
		delete(k.ids, pid)
		h.Ended, h.Status = true, syscall.WaitStatus(status)
		_ = unix.Close(h.control)
		_ = unix.Close(h.said)
		h.control, h.said = -1, -1
		if k.master == nil {
			h.Place.remove()
		}
	}
	k.nothingLeft()
}
