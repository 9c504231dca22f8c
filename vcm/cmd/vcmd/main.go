// The runtime would keep the host's control group files open to follow changes
// of a processor limit, which VCMs do not have: theirs is a weight.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command vcmd is one virtual module: the security module of one tenant with
// its token service, in a sandbox of its own.
//
// It takes no arguments and reads no environment. The orchestrator starts it
// with the descriptors that package vcmcontrol lists and tells it the rest over
// the control socket; the partition key comes from hsmd alone. It serves on while
// the orchestrator is silent, also for good. When the control socket closes, the
// process that keeps it for the next orchestrator is gone, too: then vcmd drains
// and ends, because nobody supervises it any more. A unit that was killed it waits for,
// and goes on with over another device channel; see unit.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/sandbox"
)

const (
	// startTimeout bounds the wait for the orchestrator's first word.
	startTimeout = 30 * time.Second
	// defaultDrain is for ends that nobody asked for with a time.
	defaultDrain = 5 * time.Second
)

func main() {
	os.Exit(run())
}

func run() int {
	procs := alone()
	var level slog.LevelVar
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &level}))
	if err := live(&level, log, procs); err != nil {
		log.Error("vcmd ends", "err", err)
		return errkind.Of(err).ExitCode()
	}
	return 0
}

// live is the whole life of the process. nil means that it was told to end.
func live(level *slog.LevelVar, log *slog.Logger, procs *processors) error {
	door, err := sandbox.Begin()
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	ctx := context.Background()
	c, err := openControl(os.NewFile(vcmcontrol.ControlFD, "control"))
	if err != nil {
		return err
	}
	defer c.close()
	start, err := c.awaitStart(ctx)
	if err != nil {
		return err
	}
	if err := level.UnmarshalText([]byte(start.LogLevel)); err != nil {
		level.Set(slog.LevelInfo)
	}
	log = log.With("vcm", start.UUID)

	procs.mask = start.Processors
	m, err := assemble(ctx, start, door, procs, log)
	if err != nil {
		return errors.Join(err, c.reportFailure(ctx, err))
	}
	defer m.end(log)
	c.serves(m)
	c.reportReady(m.ready)
	runtime.Gosched() // until the report is on its way
	// The first process of a pid namespace gets only signals it handles. To handle them
	// the runtime makes three threads, which a start need not wait for, nor take into
	// the sandbox: until here the end of the control socket ends it, or its time.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	m.services.run("host keys", m.checkKeysLate)
	log.Info("VCM is ready", "module", m.ready.ModuleID, "isolation", m.ready.Level)
	return m.live(ctx, c, log)
}
