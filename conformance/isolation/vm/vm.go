// Package vm runs the hostile suite in a virtual machine of its own, for what the
// machine at hand does not have: a kernel whose controllers are all on control
// groups of version 2.
//
// The machine is QEMU without KVM, so it runs wherever QEMU does, and slowly. It
// has the kernel of a package, an initial file system with nothing but our static
// programs, no disk and no network. Its first process is the suite's program.
package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Machine is one to start.
type Machine struct {
	Kernel    string // file with a kernel that needs no modules
	Programs  string // folder that becomes /bin
	Init      string // of these programs, the first process
	Arguments []string
	Dir       string // for the initial file system and the kernel's messages
	Limit     time.Duration
	Out       io.Writer
}

// Memory and processors of the machine: as many as the suite needs to make
// processors scarce and memory not.
const (
	memory     = "3072"
	processors = "2"
	// Without the compare-and-swap of 16 bytes: QEMU 7.2 damages the flags at it
	// and the kernel dies. Page tables of five levels only cost time.
	processor = "max,-cx16,-la57,-pku"
)

// Run starts the machine and copies to Out what its first process says. It
// returns when the machine is off.
func (m Machine) Run(ctx context.Context) (err error) {
	initrd := filepath.Join(m.Dir, "initrd")
	if err := m.makeRoot(initrd); err != nil {
		return err
	}
	messages := filepath.Join(m.Dir, "kernel.log")
	ctx, cancel := context.WithTimeout(ctx, m.Limit)
	defer cancel()
	arguments := append([]string{"console=ttyS0", "panic=-1", "loglevel=5", "mitigations=off", "tsc=unstable", "--"}, m.Arguments...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc", "-accel", "tcg,thread=single", "-cpu", processor,
		"-smp", processors, "-m", memory, "-kernel", m.Kernel, "-initrd", initrd, "-append", strings.Join(arguments, " "),
		"-serial", "file:"+messages, "-serial", "stdio")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w; on Debian it is in qemu-system-x86", err)
	}
	verdict := ""
	for sc := bufio.NewScanner(out); sc.Scan(); {
		line := strings.TrimRight(sc.Text(), "\r")
		if v, ok := strings.CutPrefix(line, verdictPrefix); ok {
			verdict = v
			continue
		}
		fmt.Fprintln(m.Out, line)
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("the machine was not done after %s", m.Limit)
	case err != nil:
		err = fmt.Errorf("QEMU: %w: %s", err, complaints.String())
	case verdict == "":
		err = errors.New("the machine went off without a verdict")
	case verdict != "0":
		err = fmt.Errorf("the suite in the machine ended with %s", verdict)
	default:
		return nil
	}
	said, _ := os.ReadFile(messages)
	return fmt.Errorf("%w; the kernel said last:\n%s", err, tail(string(said), 20))
}

// verdictPrefix begins the line by which the guest says how its suite ended.
const verdictPrefix = "guest: verdict "

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
