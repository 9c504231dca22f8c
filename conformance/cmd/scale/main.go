// Command scale runs N VCMs on one unit through their whole life, with the
// orchestrator killed in between, and prints what they cost:
//
//	scale WHAT FIGURE, budget BOUND
//
// It fails where a VCM is stuck, a token is not accepted, something is left, or
// a figure is over its budget. It leaves no process behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/scale"
)

func main() {
	cfg := scale.Config{Out: os.Stdout}
	flag.StringVar(&cfg.Bin, "bin", "bin", "folder with the binaries")
	flag.IntVar(&cfg.N, "n", 1000, "number of VCMs, 1 to 1000")
	flag.IntVar(&cfg.Workers, "connections", 16, "connections to the orchestrator at once")
	flag.DurationVar(&cfg.Idle, "idle", 10*time.Second, "time over which idle processor use is measured")
	keep := flag.Bool("keep", false, "keep the state and the logs")
	flag.Parse()
	cfg.Flags = flag.Args() // options of orchestratord
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg, *keep)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "scale: FAILED: %v\n", err)
		os.Exit(1)
	}
	fmt.Println("scale: ok")
}

func run(ctx context.Context, cfg scale.Config, keep bool) (err error) {
	if cfg.N < 1 || cfg.N > 1000 || cfg.Workers < 1 || cfg.Idle <= 0 {
		return fmt.Errorf("-n is 1 to 1000, -connections and -idle are positive")
	}
	if cfg.Bin, err = filepath.Abs(cfg.Bin); err != nil {
		return err
	}
	if cfg.Dir, err = os.MkdirTemp("", "tscale-"); err != nil {
		return err
	}
	// Where the orchestrator runs as root, VCMs run as somebody else.
	if err := os.Chmod(cfg.Dir, 0o755); err != nil {
		return err
	}
	if err := scale.Run(ctx, cfg); err != nil {
		return fmt.Errorf("%w\nthe state and the logs stay in %s", err, cfg.Dir)
	}
	if keep {
		fmt.Printf("the state and the logs are in %s\n", cfg.Dir)
		return nil
	}
	return os.RemoveAll(cfg.Dir)
}
