package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

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

// TestMadeOnOneProcessor starts a VCM as the launcher does, on one processor and with
// late timers, and expects every thread of it to be so until it has a client: then on
// all of those that it was told of, with timers in time.
func TestMadeOnOneProcessor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.isolate() // or its own attempts to connect are its first client
	home, back := r.alone()
	p := r.launch()
	back()
	p.mustBeReady()
	expect := func(when, processors string, lateBy time.Duration) {
		t.Helper()
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("threads %v, %v", threads, err)
		}
		for _, thread := range threads {
			if got := allowed(t, filepath.Join(thread, "status")); got != processors {
				t.Errorf("%s: %s: processors %s, want %s", when, thread, got, processors)
			}
			// A thread is a process to /proc, but in its lists.
			got, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
			if err != nil || strings.TrimSpace(string(got)) != fmt.Sprint(lateBy.Nanoseconds()) {
				t.Errorf("%s: %s: timers are late by %q ns, want %d, %v", when, thread, got, lateBy.Nanoseconds(), err)
			}
		}
	}
	expect("before a client comes", fmt.Sprint(home), vcmcontrol.StartSlack)
	r.mustDial(vcmcontrol.ServiceSSHAdmin, r.admin)
	expect("with a client", allowed(t, "/proc/thread-self/status"), slack)
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
