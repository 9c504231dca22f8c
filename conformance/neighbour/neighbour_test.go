package neighbour_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/conformance/neighbour"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
)

var (
	rounds   = flag.Int("rounds", 1, "rounds")
	lasts    = flag.Duration("lasts", 3*time.Second, "how long each measurement lasts")
	only     = flag.String("only", "vends,burn,scratch,connections,lease,all", "noises")
	sliceHSM = flag.Int("slice-hsm", 0, "us")
	sliceVCM = flag.Int("slice-vcm", 0, "us")
	fifoHSM  = flag.Bool("fifo-hsm", false, "")
	quota    = flag.Int("quota", 0, "percent of one cpu")
	perf     = flag.String("perf", "", "trace")
	without  = flag.String("without", "", "layers")
	binaries rigtest.Binaries
)

const (
	envHold = "TESSERAE_HOLD_CONNECTIONS"
	envTill = "TESSERAE_TILL"
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(envHold) != "":
		var address string
		var n int
		if _, err = fmt.Sscan(os.Getenv(envHold), &address, &n); err == nil {
			err = neighbour.Hold(address, n, os.Stdin, os.Stdout)
		}
	case os.Getenv(envTill) != "":
		err = neighbour.ServeTill(context.Background(), os.Stdin, os.Stdout)
	default:
		flag.Parse()
		os.Exit(binaries.Main(m))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func self(env string) *exec.Cmd {
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = []string{env}
	return cmd
}

func schedstat(pid int) (run, wait, n int64) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range tasks {
		p, _ := os.ReadFile(f)
		var a, b, c int64
		fmt.Sscan(string(p), &a, &b, &c)
		run, wait, n = run+a, wait+b, n+c
	}
	return
}

func TestDiag(t *testing.T) {
	r := binaries.New(t)
	u := newUnit(t, r)
	hsmd, orch := r.Daemon("hsmd"), r.Daemon("orchestratord")
	pidOf := func(before map[int]bool) int {
		for _, p := range r.VCMs() {
			if !before[p.PID] {
				before[p.PID] = true
				return p.PID
			}
		}
		return 0
	}
	seen := map[int]bool{}
	u.withhold = strings.Fields(strings.ReplaceAll(*without, ",", " "))
	quiet := u.vcm("quiet")
	quietPID := pidOf(seen)
	noisy := u.vcm("noisy")
	noisyPID := pidOf(seen)
	ca, _ := os.ReadFile(quiet.ca)
	till, err := neighbour.StartTill(self(envTill+"=1"), neighbour.Errand{Address: quiet.server.Address, CA: ca, User: user, Password: password, Meters: quiet.meters, Every: 8 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer till.Close()
	slice := func(pid, us int) {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, task := range tasks {
			tid, _ := strconv.Atoi(task.Name())
			attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Runtime: uint64(us) * 1000}
			if err := unix.SchedSetAttr(tid, &attr, 0); err != nil {
				fmt.Println(err)
			}
		}
	}
	if *sliceHSM > 0 {
		slice(hsmd.PID(), *sliceHSM)
	}
	if *fifoHSM {
		fmt.Println(neighbour.First(hsmd.PID()))
	}
	if *sliceVCM > 0 {
		slice(quietPID, *sliceVCM)
		slice(noisyPID, *sliceVCM)
	}
	if *quota > 0 {
		for _, v := range []*vcm{quiet, noisy} {
			d, _ := filepath.Glob("/sys/fs/cgroup/cpu/*/" + v.uuid + "/cpu.cfs_quota_us")
			fmt.Println(d, os.WriteFile(d[0], []byte(fmt.Sprint(*quota*1000)), 0))
		}
	}
	pids := map[string]int{"quiet": quietPID, "noisy": noisyPID, "hsmd": hsmd.PID(), "orch": orch.PID(), "till": till.PID()}
	measure := func(what string) neighbour.Latency {
		t.Helper()
		before := map[string][3]int64{}
		if *perf != "" {
			cmd := exec.Command("perf", "trace", "-s", "-e", "fdatasync,pwrite64,fsync", "-p", fmt.Sprint(pids[*perf]), "--", "sleep", fmt.Sprint(lasts.Seconds()-0.2))
			cmd.Stderr = os.Stdout
			cmd.Stdout = os.Stdout
			cmd.Start()
			defer cmd.Wait()
		}
		for n, p := range pids {
			a, b, c := schedstat(p)
			before[n] = [3]int64{a, b, c}
		}
		took, err := till.Vend(*lasts)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		l := neighbour.Summary(took)
		s := ""
		for _, n := range []string{"quiet", "noisy", "hsmd", "orch", "till"} {
			a, b, c := schedstat(pids[n])
			a, b, c = a-before[n][0], b-before[n][1], c-before[n][2]
			s += fmt.Sprintf(" %s %d/%d ms %d", n, a/1e6, b/1e6, c)
		}
		fmt.Printf("%-14s %s |%s\n", what, l, s)
		return l
	}
	measure("warming up")
	ratios := map[string][]float64{}
	for range *rounds {
		for _, what := range strings.Split(*only, ",") {
			stop := noisy.noise(t, what)
			time.Sleep(300 * time.Millisecond)
			beside := measure(what)
			said := stop()
			time.Sleep(500 * time.Millisecond)
			alone := measure("alone")
			ratios[what] = append(ratios[what], beside.Over(alone))
			fmt.Printf("   %s ratio %.2f p50 %.2f  %s\n", what, beside.Over(alone), float64(beside.P50)/float64(alone.P50), said)
		}
	}
	for what, rs := range ratios {
		sort.Float64s(rs)
		fmt.Printf("RATIO %-14s median %.2f of %.2f\n", what, rs[len(rs)/2], rs)
	}
	fmt.Printf("disk %d\n", u.stats(quiet.uuid).Disk)
}
