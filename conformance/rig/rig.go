// Package rig runs a whole platform from its real binaries in one folder: the
// daemons as processes, the tools as commands, on loopback addresses that no
// other rig uses. The demo plays on it, and the black-box tests do.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// stepTimeout bounds one command.
const stepTimeout = 60 * time.Second

// Rig is one platform: the folder, the binaries, the daemons. Commands may be run
// from many goroutines; the daemons belong to one.
type Rig struct {
	bin, dir string
	out      io.Writer

	// UnitFlags are further options of hsmd, InitFlags of its making.
	UnitFlags, InitFlags []string

	orphans  time.Duration // how long processes may outlive their daemon
	mu       sync.Mutex
	daemons  []*Daemon        // in the order they were first started
	children map[Process]bool // of daemons, seen so far
}

// New makes a rig that runs the binaries in bin and keeps everything in dir.
// Each command line and its output go to out. Names of sockets in dir have to fit
// the kernel: dir should be short.
func New(bin, dir string, out io.Writer) *Rig {
	return &Rig{bin: bin, dir: dir, out: &shared{mu: new(sync.Mutex), to: []io.Writer{out}}, children: map[Process]bool{}, orphans: orphanTimeout}
}

// Path is a path inside the rig's folder.
func (r *Rig) Path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

// Role is who runs a command: each has its own services home and folder.
type Role string

// The roles of a platform.
const (
	Maker    Role = "maker"
	Provider Role = "provider"
	Tenant   Role = "tenant"
	KMC      Role = "kmc"
	Vending  Role = "vending"
	Customer Role = "customer"
)

// ExitError is a command that ended with another code than wanted.
type ExitError struct {
	Command   string
	Got, Want int
	Output    string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s exited with %d instead of %d: %s", e.Command, e.Got, e.Want, strings.TrimSpace(e.Output))
}

// Run runs a tool as role; it has to succeed. It returns the standard output.
func (r *Rig) Run(ctx context.Context, role Role, tool string, args ...string) (string, error) {
	return r.RunCode(ctx, 0, role, tool, args...)
}

// RunCode runs a tool that has to end with the given exit code.
func (r *Rig) RunCode(ctx context.Context, want int, role Role, tool string, args ...string) (string, error) {
	out, err := r.Try(ctx, role, tool, args...)
	if err == nil && out.Code != want {
		err = &ExitError{Command: r.display(tool, args), Got: out.Code, Want: want, Output: out.All}
	}
	return out.Stdout, err
}

// Outcome is how a command ended.
type Outcome struct {
	Code   int
	Stdout string
	All    string // both streams, as they came
}

// Try runs a tool that may end with any exit code. The error is for one that did
// not run, or not to its end.
func (r *Rig) Try(ctx context.Context, role Role, tool string, args ...string) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	home := r.Path(string(role))
	if err := os.MkdirAll(home, 0o700); err != nil {
		return Outcome{}, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(r.bin, tool), args...)
	cmd.Dir = home
	cmd.Env = r.Env(role)
	var stdout, all bytes.Buffer
	var mu sync.Mutex // both streams end in all
	cmd.Stdout = &shared{mu: &mu, to: []io.Writer{&stdout, &all}}
	cmd.Stderr = &shared{mu: &mu, to: []io.Writer{&all}}
	fmt.Fprintf(r.out, "%s$ %s\n", role, r.display(tool, args))
	err := cmd.Run()
	fmt.Fprint(r.out, r.indented(all.String()))
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Outcome{}, fmt.Errorf("%s: %w", tool, ctx.Err())
	case err != nil && !errors.As(err, &exit):
		return Outcome{}, fmt.Errorf("%s: %w", tool, err)
	}
	return Outcome{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), All: all.String()}, nil
}

// Env is the environment of role's commands.
func (r *Rig) Env(role Role) []string {
	home := r.Path(string(role))
	return []string{"NFAST_SERVICES_HOME=" + filepath.Join(home, "services"), "HOME=" + home, "PATH=/usr/bin:/bin"}
}

// shared writes to several writers, one write at a time.
type shared struct {
	mu *sync.Mutex
	to []io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.to {
		if _, err := w.Write(p); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// display is a command line for people: the rig's folder is $D.
func (r *Rig) display(tool string, args []string) string {
	words := []string{tool}
	for _, a := range args {
		a = strings.ReplaceAll(a, r.dir, "$D")
		if a == "" || strings.ContainsAny(a, " |;") {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// indented is a command's output for people, long output shortened.
func (r *Rig) indented(text string) string {
	const most = 30
	var b strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		if i == most {
			fmt.Fprintf(&b, "    … %d more lines\n", len(lines)-most)
			break
		}
		if line != "" {
			fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(line, r.dir, "$D"))
		}
	}
	return b.String()
}
