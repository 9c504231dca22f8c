package launch_test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
)

// The test binary, run again as vcmd, is the child of these tests.
func TestMain(m *testing.M) {
	launch.ServeForker()
	if strings.HasPrefix(os.Args[0], "vcmd ") {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

// census is what the child found around itself; it answers it as the level's proof.
type census struct {
	FDs       []int
	Env, Args []string
	UID       int
	PID       int
	Nets      int
	Isolation vcmcontrol.Isolation

	Processors int      // it began with
	Told       []uint64 // of those that it may use
	Home       int      // the first of those that it began with
	Slack      time.Duration
}

// child speaks vcmcontrol; what it does is in the VCM's name.
func child() int {
	found := takeCensus()
	uc, err := fdrpc.FromFile(os.NewFile(vcmcontrol.ControlFD, "control"))
	if err != nil {
		return 3
	}
	var words atomic.Int64
	listener := os.NewFile(vcmcontrol.FirstListenerFD, "listener")
	stop := make(chan struct{}, 1)
	starts := make(chan vcmcontrol.Start, 1)
	var start vcmcontrol.Start
	conn := fdrpc.New(uc, func(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
		switch r.Method {
		case vcmcontrol.MethodStart:
			var s vcmcontrol.Start
			if err := r.Decode(&s); err != nil {
				return fdrpc.Reply{}, err
			}
			start = s
			starts <- s
			return fdrpc.Reply{}, nil
		case vcmcontrol.MethodStats:
			return fdrpc.Reply{Body: vcmcontrol.Stats{Requests: 7, Tokens: words.Load()}}, nil
		case vcmcontrol.MethodHello:
			return hello(start, listener)
		case vcmcontrol.MethodMode:
			return fdrpc.Reply{Body: vcmcontrol.Mode{Operational: start.Name == "busy"}}, nil
		case vcmcontrol.MethodStop:
			var s vcmcontrol.Stop
			if err := r.Decode(&s); err != nil {
				return fdrpc.Reply{}, err
			}
			if start.Name == "busy" && !s.Force {
				return fdrpc.Reply{}, errkind.Errorf(errkind.Mode, "the token service is operational")
			}
			stop <- struct{}{}
			return fdrpc.Reply{}, nil
		}
		return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "unknown method %q", r.Method)
	})
	over := make(chan error, 1)
	go func() { over <- conn.Run(context.Background()) }()
	s := <-starts
	found.Isolation, found.Told = s.Isolation, s.Processors
	if s.Name == "talkative" {
		go func() {
			for {
				n, _ := os.Stderr.WriteString("what a day\n")
				words.Add(int64(n))
				time.Sleep(100 * time.Nanosecond)
			}
		}()
	}
	if done := act(conn, s, found); done >= 0 {
		return done
	}
	select {
	case <-stop:
		if s.Name == "deaf" {
			signal.Ignore(syscall.SIGTERM)
			time.Sleep(time.Hour)
		}
		return 0
	case <-over:
		if s.Name == "deaf" {
			time.Sleep(time.Hour)
		}
		return 4
	}
}

// hello gives an orchestrator that takes the child over what it wants, or not.
func hello(start vcmcontrol.Start, listener *os.File) (fdrpc.Reply, error) {
	give := listener
	switch start.Name {
	case "mute", "unasked":
		return fdrpc.Reply{}, errkind.Errorf(errkind.Unavailable, "the VCM has not started yet")
	case "liar":
		give = os.Stdin
	}
	fd, err := unix.FcntlInt(give.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return fdrpc.Reply{Body: vcmcontrol.Ready{Level: "process", ModuleID: "00000001"}, Files: []*os.File{os.NewFile(uintptr(fd), "copy")}}, err
}

// act reports, and returns the exit code if the child ends at once.
func act(conn *fdrpc.Conn, s vcmcontrol.Start, found census) int {
	ctx := context.Background()
	switch kind, arg, _ := strings.Cut(s.Name, ":"); kind {
	case "exit":
		return 9
	case "mute":
		return -1
	case "final", "fail":
		_, _ = conn.Call(ctx, vcmcontrol.MethodFailed, vcmcontrol.Failed{Kind: "integrity", Reason: "the store\nis torn", Final: kind == "final"}, nil)
		return 1
	case "crash": // after so many milliseconds of service
		ready(ctx, conn, found)
		ms, _ := strconv.Atoi(arg)
		time.Sleep(time.Duration(ms) * time.Millisecond)
		return 5
	}
	if err := ready(ctx, conn, found); err != nil {
		return 6
	}
	return -1
}

func ready(ctx context.Context, conn *fdrpc.Conn, found census) error {
	p, _ := json.Marshal(found)
	_, err := conn.Call(ctx, vcmcontrol.MethodReady, vcmcontrol.Ready{
		Level: "process", ModuleID: "00000001", Controls: []vcmcontrol.Control{{Control: "census", Proof: string(p)}},
	}, nil)
	return err
}

func takeCensus() census {
	c := census{Env: os.Environ(), Args: os.Args, UID: os.Getuid(), PID: os.Getpid(), Processors: runtime.NumCPU()}
	var home unix.CPUSet
	for unix.SchedGetaffinity(0, &home) == nil && !home.IsSet(c.Home) {
		c.Home++
	}
	slack, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	c.Slack = time.Duration(slack)
	for fd := range 1024 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && !runtimeFD(fd) {
			c.FDs = append(c.FDs, fd)
		}
	}
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		if i.Flags&net.FlagUp != 0 {
			c.Nets++
		}
	}
	slices.Sort(c.FDs)
	return c
}

// runtimeFD reports whether fd is the Go runtime's own: its poller, or the two
// files that tell it how many CPUs its control group may use.
func runtimeFD(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return true
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return true
	}
	return fs.Type == unix.ANON_INODE_FS_MAGIC || fs.Type == unix.CGROUP_SUPER_MAGIC || fs.Type == unix.CGROUP2_SUPER_MAGIC
}
