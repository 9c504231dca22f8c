package launch

import (
	"os"
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
			go k.endAlone()
		}
	}
}

// endAlone ends everything unless there is an orchestrator, who decides.
func (k *keeper) endAlone() {
	if k.begin(func() bool { return k.master == nil }) {
		k.finish()
		k.quit()
	}
}

// endAll ends everything because the orchestrator wants it.
func (k *keeper) endAll() {
	if k.begin(func() bool { return true }) {
		k.finish()
		return
	}
	<-k.over // somebody else does it
}

// begin reports whether the caller is to end everything.
func (k *keeper) begin(may func() bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending || !may() {
		return false
	}
	k.ending = true
	return true
}

// finish ends every process, by force if need be, and their control groups.
func (k *keeper) finish() {
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
}

// clear removes the folders that control groups were in, unless others are there.
func (k *keeper) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for base := range k.bases {
		_ = os.Remove(base)
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
