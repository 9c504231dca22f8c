package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a daemon may take to end on SIGTERM.
const stopTimeout = 20 * time.Second

// Daemon is one long-running process of a rig.
type Daemon struct {
	Name string
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // valid after done

	killed bool
}

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Start starts a daemon; its output is appended to a log file.
func (r *Rig) Start(role Role, tool string, args ...string) (*Daemon, error) {
	fmt.Fprintf(r.out, "%s$ %s &\n", role, r.display(tool, args))
	if tool == "orchestratord" && !slices.Contains(args, "--orphan-grace") {
		args = append(slices.Clone(args), "--orphan-grace", OrphanGrace.String())
	}
	d := &Daemon{Name: tool, args: args}
	if err := r.launch(d); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.daemons = append(r.daemons, d)
	return d, nil
}

// Daemon returns the running daemon of that name, nil if there is none.
func (r *Rig) Daemon(name string) *Daemon {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.daemons {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// Resumed counts how often a VCM, or any for "", has gone on with a unit that was away.
func (r *Rig) Resumed(uuid string) (n int) {
	text, err := os.ReadFile(r.Path("log", "hsmd.log"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "partition resumed") && strings.Contains(line, uuid) {
			n++
		}
	}
	return n
}

func (r *Rig) launch(d *Daemon) error {
	if err := os.MkdirAll(r.Path("log"), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(r.logPath(d), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(r.bin, d.Name), d.args...)
	cmd.Dir = r.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: an interrupt at the terminal reaches the rig's owner,
	// who then stops the daemons in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd, d.done = cmd, make(chan struct{})
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	return nil
}

// Kill ends a daemon with SIGKILL and waits for its end. It is halted first, so
// that it has no child that nobody knows of.
func (r *Rig) Kill(d *Daemon) {
	_ = d.cmd.Process.Signal(syscall.SIGSTOP)
	r.note(d)
	_ = d.cmd.Process.Kill()
	<-d.done
	d.killed = true
}

// Restart starts a daemon again that has ended.
func (r *Rig) Restart(d *Daemon) error {
	select {
	case <-d.done:
	default:
		return fmt.Errorf("%s still runs", d.Name)
	}
	d.killed = false
	return r.launch(d)
}

// Await waits until ready, while every daemon lives.
func (r *Rig) Await(ctx context.Context, what string, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for !ready() {
		for _, d := range r.Daemons() {
			select {
			case <-d.done:
				return fmt.Errorf("%s ended (%v) while waiting for %s; its log ends:\n%s", d.Name, d.err, what, r.Tail(d))
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// Daemons are those that were started, also if they have ended since.
func (r *Rig) Daemons() []*Daemon {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.daemons)
}

func (r *Rig) logPath(d *Daemon) string { return r.Path("log", d.Name+".log") }

// Tail is the end of a daemon's log.
func (r *Rig) Tail(d *Daemon) string {
	p, err := os.ReadFile(r.logPath(d))
	if err != nil {
		return err.Error()
	}
	const most = 3000
	return string(p[max(0, len(p)-most):])
}

// Stop ends every daemon, the last started first: SIGTERM, then SIGKILL for one
// that stays. It is an error if one did not end by itself or not with 0, and if
// the process of a VCM is left, also one of an orchestrator that was killed.
func (r *Rig) Stop() error {
	r.mu.Lock()
	daemons := r.daemons
	r.daemons = nil
	r.mu.Unlock()
	var errs []error
	for _, d := range slices.Backward(daemons) {
		r.note(d)
		errs = append(errs, r.stop(d))
	}
	for _, p := range r.left() {
		errs = append(errs, fmt.Errorf("process %d of a VCM was left behind (killed now: %v)", p.PID, p.Kill()))
	}
	return errors.Join(errs...)
}

func (r *Rig) stop(d *Daemon) error {
	if d.killed {
		return nil
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(stopTimeout):
		r.Kill(d)
		return fmt.Errorf("%s did not stop on SIGTERM within %s; its log ends:\n%s", d.Name, stopTimeout, r.Tail(d))
	}
	if d.err != nil {
		return fmt.Errorf("%s did not stop cleanly: %w; its log ends:\n%s", d.Name, d.err, r.Tail(d))
	}
	return nil
}

// HowToStop tells a person how to go on with a rig that stays up.
func (r *Rig) HowToStop() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Still running, in D=%s\n", r.dir)
	for _, who := range []struct {
		role Role
		try  string
	}{{Provider, "vcmadmin list"}, {Tenant, "ptokenadmin status"}} {
		fmt.Fprintf(&b, "  as the %-9s NFAST_SERVICES_HOME=%s %s\n", string(who.role)+":", r.Path(string(who.role), "services"), filepath.Join(r.bin, who.try))
	}
	var pids []string
	for i := len(r.daemons) - 1; i >= 0; i-- {
		pids = append(pids, fmt.Sprint(r.daemons[i].PID()))
	}
	fmt.Fprintf(&b, "  to stop:         kill %s && rm -r %s\n", strings.Join(pids, " "), r.dir)
	return b.String()
}
