package launch

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// What a forker does while there is no orchestrator.

const (
	// endPatience is how long processes may take to drain and end.
	endPatience = 10 * time.Second
	// saidMost is how much of what a process says waits for the next orchestrator.
	// A pipe that is full would halt who writes to it.
	saidMost  = 32 << 10
	saidEvery = 200 * time.Millisecond
)

// heed obeys signals: the end of a child, and somebody who wants the processes of
// an orchestrator that will not come back to end.
func (k *keeper) heed(signals <-chan os.Signal) {
	for s := range signals {
		switch s {
		case unix.SIGCHLD:
			k.reap()
		case unix.SIGTERM:
			k.mu.Lock()
			alone := k.master == nil
			k.mu.Unlock()
			if alone { // else the orchestrator decides
				go func() { k.endAll(); k.quit() }()
			}
		}
	}
}

// endAll ends every process, by force if need be, and their control groups.
func (k *keeper) endAll() {
	k.mu.Lock()
	if k.ending {
		k.mu.Unlock()
		<-k.over // somebody else does it
		return
	}
	k.ending = true
	bases := map[string]bool{}
	for _, h := range k.kept {
		for _, d := range h.Place.Dirs {
			bases[filepath.Dir(d)] = true
		}
	}
	k.mu.Unlock()
	for _, step := range []struct {
		signal   unix.Signal
		patience time.Duration
	}{{unix.SIGTERM, endPatience}, {unix.SIGKILL, endPatience}} {
		k.signalAll(step.signal)
		for end := time.Now().Add(step.patience); k.running() > 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			k.reap()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.kept {
		h.Place.remove()
	}
	for base := range bases {
		_ = os.Remove(base) // unless another VCM is there
	}
}

func (k *keeper) signalAll(s unix.Signal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for pid := range k.ids { // not waited for, so the number is still theirs
		_ = unix.Kill(pid, s)
	}
}

func (k *keeper) running() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.ids)
}

// skimAll keeps the pipes of processes from filling up while there is no
// orchestrator who reads them: what is oldest is dropped.
func (k *keeper) skimAll() {
	tick := time.NewTicker(saidEvery)
	defer tick.Stop()
	for range tick.C {
		k.mu.Lock()
		alone := k.master == nil
		for _, id := range k.ids {
			if alone {
				skim(k.kept[id].said)
			}
		}
		k.mu.Unlock()
		if !alone {
			return
		}
	}
}

func skim(fd int) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || n < saidMost {
		return
	}
	var p [saidMost / 2]byte
	_, _ = unix.Read(fd, p[:]) // there is as much, and nobody else who reads
}

// remove drops the folders of a control group, which the kernel frees a little
// after the last process was waited for.
func (p place) remove() {
	g := group{dirs: p.Dirs}
	g.Remove()
}
