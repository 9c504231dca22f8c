package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// allowed is what the kernel says of a thread's processors.
func allowed(t *testing.T, status string) string {
	t.Helper()
	p, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(p), "\nCpus_allowed_list:")
	list, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(list)
}

// slackOf is how late the timers of a process's threads may be.
func slackOf(t *testing.T, pid int) (all []time.Duration) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, thread := range threads {
		// A thread is a process to /proc, but in its lists.
		p, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := time.ParseDuration(strings.TrimSpace(string(p)) + "ns")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// TestMadeOnOneProcessor starts a VCM as the launcher does, on one processor and with
// late timers, and expects every thread of it on all of those that it was told of,
// and its timers in time when it has a client.
func TestMadeOnOneProcessor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.isolate() // or its own attempts to connect are its first client
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for i := range 1024 {
		if all.IsSet(i) {
			one.Set(i)
			break
		}
	}
	for _, w := range all {
		r.start.Processors = append(r.start.Processors, uint64(w))
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	late := func(d time.Duration) {
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d), 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	late(vcmcontrol.StartSlack)
	p := r.launch()
	late(0) // what it was
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	p.mustBeReady()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	want := allowed(t, "/proc/thread-self/status")
	for _, thread := range threads {
		if got := allowed(t, thread); got != want {
			t.Errorf("%s: processors %s, want %s", thread, got, want)
		}
	}
	if got := slackOf(t, p.cmd.Process.Pid); !slices.Equal(got, []time.Duration{vcmcontrol.StartSlack}) {
		t.Errorf("before a client comes the timers may be late by %v", got)
	}
	r.mustDial(vcmcontrol.ServiceSSHAdmin, r.admin)
	if got := slackOf(t, p.cmd.Process.Pid); !slices.Equal(got, []time.Duration{slack}) {
		t.Errorf("with a client the timers may be late by %v", got)
	}
}

// TestFirstClientTakesTheProcessors changes the runtime of this process, so that it
// runs alone.
func TestFirstClientTakesTheProcessors(t *testing.T) {
	was := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(was)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := busy{l, &processors{n: was + 1, taken: make(chan struct{})}}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if got := runtime.GOMAXPROCS(0); got != was {
		t.Fatalf("%d processors before the first client is accepted, want %d", got, was)
	}
	server, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	if got := runtime.GOMAXPROCS(0); got != was+1 {
		t.Fatalf("%d processors with a client, want %d", got, was+1)
	}
}
