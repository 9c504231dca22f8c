// Package clients_test speaks to a live platform with other people's programs:
// OpenSSH, OpenSSL, and Apache Thrift's own library for Python.
package clients_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
)

var binaries rigtest.Binaries

func TestMain(m *testing.M) { os.Exit(binaries.Main(m)) }

// programTimeout bounds one run of a program.
const programTimeout = 30 * time.Second

// ran is how a program ended.
type ran struct {
	code           int
	stdout, stderr string
}

// run runs a program that has to be installed.
func run(t *testing.T, home, stdin, program string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("%s %v did not end within %s:\n%s%s", program, args, programTimeout, stdout.String(), stderr.String())
	case err != nil && !errors.As(err, &exit):
		t.Fatalf("%s: %v; 'make packages' installs what the tests need", program, err)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
