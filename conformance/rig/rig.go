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

// Rig is one platform: the folder, the binaries, the daemons.
type Rig struct {
	bin, dir string
	out      io.Writer
	daemons  []*Daemon // in the order they were first started
}

// New makes a rig that runs the binaries in bin and keeps everything in dir.
// Each command line and its output go to out.
func New(bin, dir string, out io.Writer) *Rig { return &Rig{bin: bin, dir: dir, out: out} }

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
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	home := r.Path(string(role))
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", err
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
	r.show(all.String())
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s: %w", tool, ctx.Err())
	case err != nil && !errors.As(err, &exit):
		return "", fmt.Errorf("%s: %w", tool, err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		return "", &ExitError{Command: r.display(tool, args), Got: got, Want: want, Output: all.String()}
	}
	return stdout.String(), nil
}

// Env is the environment of role's commands.
func (r *Rig) Env(role Role) []string {
	home := r.Path(string(role))
	return []string{"NFAST_SERVICES_HOME=" + filepath.Join(home, "services"), "HOME=" + home, "PATH=/usr/bin:/bin"}
}

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

// show prints a command's output indented, long output shortened.
func (r *Rig) show(text string) {
	const most = 30
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		if i == most {
			fmt.Fprintf(r.out, "    … %d more lines\n", len(lines)-most)
			return
		}
		if line != "" {
			fmt.Fprintf(r.out, "    %s\n", strings.ReplaceAll(line, r.dir, "$D"))
		}
	}
}
