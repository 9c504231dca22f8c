package guides

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// commandTimeout bounds one command of a guide.
const commandTimeout = 2 * time.Minute

// Runner runs a guide's commands in a rig's folder.
type Runner struct {
	rig *rig.Rig
	bin string
	log func(format string, args ...any)
}

// NewRunner makes a runner that finds the platform's programs in bin. log gets
// each command and its output.
func NewRunner(r *rig.Rig, bin string, log func(format string, args ...any)) *Runner {
	return &Runner{rig: r, bin: bin, log: log}
}

// Run runs the guide. It stops at a command that ends with another exit code than
// the guide says, since the rest builds on it, and not at one that only prints
// something else.
func (x *Runner) Run(ctx context.Context, g *Guide) error {
	var wrong []error
	for _, c := range g.Commands {
		at := func(err error) error { return fmt.Errorf("line %d, %s$ %s: %w", c.Line, c.Role, c.Text, err) }
		if c.Daemon {
			if err := x.daemon(ctx, c); err != nil {
				return errors.Join(append(wrong, at(err))...)
			}
			continue
		}
		out, code, err := x.shell(ctx, c.Role, c.Text)
		if err == nil && code != c.Exit {
			err = fmt.Errorf("exit code %d, not %d:\n%s", code, c.Exit, out)
		}
		if err != nil {
			return errors.Join(append(wrong, at(err))...)
		}
		x.log("%s$ %s\n%s[exit %d]", c.Role, c.Text, out, code)
		if err := c.Check(out); err != nil {
			wrong = append(wrong, at(fmt.Errorf("%w:\n%s", err, out)))
		}
	}
	return errors.Join(wrong...)
}

// daemon starts a process that the rig stops in the end.
func (x *Runner) daemon(ctx context.Context, c Command) error {
	// The shell expands the words; the rig runs them.
	out, code, err := x.shell(ctx, c.Role, "printf '%s\\n' "+c.Text)
	if err != nil || code != 0 {
		return fmt.Errorf("exit code %d: %w:\n%s", code, err, out)
	}
	words := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if _, err := x.rig.Start(rig.Role(c.Role), words[0], words[1:]...); err != nil {
		return err
	}
	return x.rig.Await(ctx, c.Until, func() bool {
		_, err := os.Stat(x.rig.Path(c.Until))
		return err == nil
	})
}

// shell runs a command with the role's variables, and keeps those it sets.
func (x *Runner) shell(ctx context.Context, role, text string) (output string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	home := x.rig.Path(role)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", 0, err
	}
	variables := filepath.Join(home, "variables")
	// Every variable is exported, so that "export -p" keeps it for the next shell.
	script := `set -a; [ ! -e "$1" ] || . "$1"; trap 'export -p >"$1"' EXIT; eval "$2"`
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc", "-c", script, "sh", variables, text)
	cmd.Dir = x.rig.Path()
	cmd.Env = append(x.rig.Env(rig.Role(role)), "LC_ALL=C.UTF-8", "PATH="+x.bin+":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	if err != nil {
		return "", 0, err
	}
	return out.String(), cmd.ProcessState.ExitCode(), nil
}
