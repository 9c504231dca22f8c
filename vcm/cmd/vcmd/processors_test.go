package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

// TestMadeOnOneProcessor starts a VCM as the launcher does, on one processor, and
// expects every thread of it on all of those that it was told of.
func TestMadeOnOneProcessor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
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
	p := r.launch()
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
