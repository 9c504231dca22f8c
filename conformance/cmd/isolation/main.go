// Command isolation runs the hostile suite of package isolation, as the calling
// user and, where that is root, as nobody too. It prints what was tried and fails
// where an attempt got through that should not have.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/isolation"
)

// nobody is whom the suite runs as besides root.
const nobody = 65534

type options struct {
	bin, dir, users string
	parts, rows     string
	kernel          string
	limit           time.Duration
	short, keep     bool
	ownGroup        bool
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "before" { // a program of the suite begins
		fmt.Fprintln(os.Stderr, "isolation:", isolation.Before(os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) == 4 && os.Args[1] == "collect" { // the kernel has a core file
		if isolation.Collect(os.Args[2], os.Args[3], os.Stdin) != nil {
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "guest" { // the first process of a virtual machine
		guest(os.Args[2:])
		return
	}
	var o options
	_ = o.flags().Parse(os.Args[1:]) // it exits
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "isolation: FAILED: %v\n", err)
		os.Exit(1)
	}
}

func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("isolation", flag.ExitOnError)
	f.StringVar(&o.bin, "built", "", "folder with programs that an earlier run has built")
	f.StringVar(&o.dir, "dir", "", "empty folder to run in (default: a temporary one)")
	f.StringVar(&o.users, "users", "root,nobody", "whom to run as, where that can be chosen")
	f.StringVar(&o.parts, "parts", "", "parts to run, separated by commas (default: all)")
	f.StringVar(&o.rows, "rows", "", "rows of the matrix to run, separated by commas (default: all)")
	f.StringVar(&o.kernel, "kernel", "", "run in a virtual machine with this kernel, whose control groups are of version 2")
	f.DurationVar(&o.limit, "limit", 20*time.Minute, "how long a virtual machine may take")
	f.BoolVar(&o.short, "short", false, "only a few rows of the table")
	f.BoolVar(&o.keep, "keep", false, "keep the state and the logs")
	return f
}

func run(ctx context.Context, o options) (err error) {
	if o.bin == "" {
		if o.bin, err = os.MkdirTemp("", "tess-iso-bin-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.bin)
		if err := os.Chmod(o.bin, 0o755); err != nil { // nobody runs them, too
			return err
		}
		if err := isolation.Build(ctx, o.bin); err != nil {
			return err
		}
	}
	switch {
	case o.kernel != "":
		return inMachine(ctx, o)
	case os.Geteuid() != 0:
		return suite(ctx, o)
	}
	var errs []error
	for _, user := range strings.Split(o.users, ",") {
		switch user {
		case "root":
			errs = append(errs, suite(ctx, o))
		case "nobody":
			errs = append(errs, asNobody(ctx, o))
		default:
			return fmt.Errorf("-users: %q is neither root nor nobody", user)
		}
	}
	return errors.Join(errs...)
}

// suite runs as the calling user.
func suite(ctx context.Context, o options) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "tiso-"); err != nil {
			return err
		}
	}
	s := &isolation.Suite{Bin: o.bin, Dir: o.dir, Out: os.Stdout, Short: o.short, OwnGroup: o.ownGroup}
	if o.parts != "" {
		s.Parts = strings.Split(o.parts, ",")
	}
	if o.rows != "" {
		s.Rows = strings.Split(o.rows, ",")
	}
	holes, err := s.Run(ctx)
	for _, h := range holes {
		fmt.Printf("HOLE: %s\n", h)
	}
	if len(holes) > 0 {
		err = errors.Join(err, fmt.Errorf("%d holes", len(holes)))
	}
	if err != nil {
		return fmt.Errorf("%w\nthe state and the logs stay in %s", err, o.dir)
	}
	fmt.Println("isolation: no hole")
	if o.keep {
		return nil
	}
	return os.RemoveAll(o.dir)
}

// asNobody runs this program again without privilege.
func asNobody(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "tiso-")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil && !o.keep { // else somebody wants to look at it
			err = os.RemoveAll(dir)
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	work := dir + "/w"
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	if err := os.Chown(work, nobody, nobody); err != nil {
		return err
	}
	env, err := isolation.PrepareSetUID(dir)
	if err != nil {
		return err
	}
	cores, undo, err := isolation.PrepareCores(o.bin, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	unreadable, err := isolation.PrepareUnreadable(o.bin, dir)
	if err != nil {
		return err
	}
	env = append(append(env, cores...), unreadable...)
	self, err := os.Open("/proc/self/exe") // nobody may not reach it by its path
	if err != nil {
		return err
	}
	defer self.Close()
	args := []string{"-built", o.bin, "-dir", work, "-parts", o.parts, "-rows", o.rows, fmt.Sprintf("-short=%t", o.short), "-keep"}
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/self/fd/%d", self.Fd()), args...)
	cmd.Dir = work
	cmd.Env = append(env, "PATH=/usr/bin:/bin", "HOME="+work, "TMPDIR="+work)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}
