package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// commands are the packages whose binaries a rig runs.
var commands = [...]string{
	"hsm/cmd/hsmd", "orchestrator/cmd/orchestratord", "vcm/cmd/vcmd", "sp-tools/cmd/vcmadmin", "sp-tools/cmd/hsmadmin",
	"tenant/cmd/ptokenadmin", "licensing/cmd/vendor", "conformance/cmd/kmc", "conformance/cmd/meter", "conformance/cmd/vend",
	"conformance/cmd/demo",
}

const module = "github.com/tesserae-hsm/tesserae/"

// Build makes static binaries of everything in dir, as the Makefile does. It
// needs to be called from within the module.
func Build(ctx context.Context, dir string) error {
	args := []string{"build", "-trimpath", "-o", dir + string(os.PathSeparator)}
	for _, c := range commands {
		args = append(args, module+c)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// Complete reports what is missing in a folder of binaries.
func Complete(dir string) error {
	for _, c := range commands {
		if _, err := os.Stat(filepath.Join(dir, path.Base(c))); err != nil {
			return fmt.Errorf("%w; 'make build' makes every binary", err)
		}
	}
	return nil
}
