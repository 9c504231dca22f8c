package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/services/monitor"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

const (
	// checkpointEvery is how long an entry of the audit log waits for a signed
	// checkpoint at most, once there was a client.
	checkpointEvery = time.Second
	// clockEvery is how often the module's clock is read again.
	clockEvery = time.Minute
	// deviceTimeout bounds one call of hsmd while the VCM serves.
	deviceTimeout = 5 * time.Second
)

// live waits until the module is to end, or cannot go on, and drains it.
func (m *module) live(ctx context.Context, c *control, log *slog.Logger) (err error) {
	drain := defaultDrain
	why := "told by signal"
	gone := make(chan error, 1)
	m.services.run("unit", func(ctx context.Context) error {
		if err := m.unit.gone(ctx, log); err != nil {
			gone <- err
		}
		return nil
	})
	select {
	case s := <-c.stop.given:
		why = "stopped"
		drain = time.Duration(s.Drain) * time.Millisecond
	case <-c.ended:
		why = "orchestrator gone, and who kept its socket"
	case err = <-c.refused:
		why = "refused by the orchestrator"
	case <-ctx.Done():
	case <-m.store.Broken():
		why, err = "store failed", m.store.Failed()
	case err = <-gone:
		why = "module gone"
	case err = <-m.services.failed:
		why = "service failed"
	}
	log.Info("VCM ends", "why", why, "drain", drain)
	if !m.services.stop(drain) {
		log.Warn("calls were still in progress at the end of the drain time")
	}
	m.noteEnd(why, log)
	return err
}

// noteEnd writes the end to the audit log, if it can still be written.
func (m *module) noteEnd(why string, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), deviceTimeout)
	defer cancel()
	err := m.store.Shrink(ctx, func(tx *store.Tx) error {
		return m.audit(tx, auditlog.Entry{Time: m.clock.Now(), Kind: "vcm.stop", Actor: "unit", Subject: m.start.UUID, Detail: map[string]string{"why": why}})
	})
	if err != nil && m.store.Failed() == nil {
		log.Warn("the end is not in the audit log", "err", err)
	}
}

// end gives everything back.
func (m *module) end(log *slog.Logger) {
	m.services.stop(0) // does nothing after live
	m.partition.close(log)
}

// checkpoints signs the audit log a moment after it has grown. What the start wrote
// can wait for more: there is nobody yet who could ask for it.
func (m *module) checkpoints(ctx context.Context) error {
	if !m.procs.rest(ctx) {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.log.Grown():
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(checkpointEvery):
		}
		if err := m.checkpoint(ctx); err != nil && ctx.Err() == nil && m.store.Failed() == nil {
			m.services.log.Error("checkpoint of the audit log", "err", err)
		}
	}
}

// checkKeysLate begins with the first client, or when the VCM has been at rest.
func (m *module) checkKeysLate(ctx context.Context) error {
	if !m.procs.rest(ctx) {
		return nil
	}
	return m.checkKeys()
}

// followClock keeps the module's clock on that of the unit.
func (m *module) followClock(ctx context.Context) error {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		callCtx, cancel := context.WithTimeout(ctx, deviceTimeout)
		t, err := m.unit.now().Time(callCtx)
		cancel()
		switch {
		case err == nil:
			m.clock.Set(t.Offset())
		case ctx.Err() == nil:
			m.services.log.Warn("the module's clock cannot be read", "err", err)
		}
	}
}

// resume goes on over another channel to the unit, which was away.
func (m *module) resume(ctx context.Context, channel *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	t, err := m.unit.resume(ctx, channel, m.counter.known())
	if err == nil {
		m.clock.Set(t.Offset())
	}
	return err
}

// sockets are the listeners, for an orchestrator that took the VCM over: it
// keeps the ports when this process ends.
func (m *module) sockets() (files []*os.File, err error) {
	for _, l := range m.listeners {
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			return nil, errkind.Errorf(errkind.Unavailable, "listeners: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// usage is what the process uses of the machine.
func (m *module) usage() monitor.Usage {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru) // cannot fail with these arguments
	seconds := func(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return monitor.Usage{Memory: m.door.Memory(), CPUSeconds: seconds(ru.Utime) + seconds(ru.Stime)}
}

// stats are the live figures for the provider.
func (m *module) stats() vcmcontrol.Stats {
	used, served := m.usage(), m.tokens.Stats()
	return vcmcontrol.Stats{
		DiskUsed: m.store.DiskUsed(), CPUSeconds: used.CPUSeconds, Memory: used.Memory,
		Requests: served.Requests, Tokens: served.Tokens, Connections: served.Connections,
		Goroutines: goroutines(), ReadOnly: m.store.ReadOnly(),
	}
}
