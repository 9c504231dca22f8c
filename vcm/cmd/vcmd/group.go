package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// group owns the goroutines of a module that serves.
type group struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	log    *slog.Logger
	failed chan error // the first service that ended by itself
}

func newGroup(log *slog.Logger) *group {
	ctx, cancel := context.WithCancel(context.Background())
	return &group{ctx: ctx, cancel: cancel, log: log, failed: make(chan error, 1)}
}

// run starts fn, which returns when its context ends.
func (g *group) run(name string, fn func(ctx context.Context) error) {
	g.wg.Go(func() {
		if err := fn(g.ctx); err != nil {
			g.log.Error("a task of the VCM failed", "task", name, "err", err)
		}
	})
}

// serve is run for what the VCM cannot be without.
func (g *group) serve(name string, fn func(ctx context.Context) error) {
	g.wg.Go(func() {
		err := fn(g.ctx)
		if g.ctx.Err() != nil {
			if err != nil {
				g.log.Warn("service ended with an error", "service", name, "err", err)
			}
			return
		}
		if err == nil {
			err = errors.New("its listener was closed")
		}
		select {
		case g.failed <- errkind.Errorf(errkind.Internal, "service %s ended by itself: %w", name, err):
		default:
		}
	})
}

// stop ends the services and lets their calls finish, for drain at most.
func (g *group) stop(drain time.Duration) (drained bool) {
	g.cancel()
	done := make(chan struct{})
	go func() { g.wg.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(drain):
		return false
	}
}
