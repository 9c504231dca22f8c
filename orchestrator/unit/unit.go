// Package unit is the orchestrator's connection to hsmd. It is made again
// whenever hsmd comes back, and tells when the unit was away: the device
// channels of every VCM ended with it.
package unit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// callTimeout bounds one call to the unit.
	callTimeout = 20 * time.Second
	// firstRetry and lastRetry bound the pause between two attempts to connect.
	firstRetry = 20 * time.Millisecond
	lastRetry  = 200 * time.Millisecond
)

// Unit is the connection to one hsmd.
type Unit struct {
	socket string
	esn    string
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	client *hsmapi.Client
	epoch  int           // counts connections
	change chan struct{} // closed and replaced when client changes
}

// Connect dials the socket and reads who the unit is. Later connections must
// meet the same unit. The caller closes the Unit.
func Connect(ctx context.Context, socket string, log *slog.Logger) (*Unit, hsmapi.Identity, error) {
	client, err := hsmapi.Dial(ctx, socket)
	if err != nil {
		return nil, hsmapi.Identity{}, err
	}
	id, err := client.Identity(ctx)
	if err != nil {
		_ = client.Close()
		return nil, hsmapi.Identity{}, err
	}
	run, cancel := context.WithCancel(context.Background())
	u := &Unit{
		socket: socket, esn: id.ESN, log: log, cancel: cancel, done: make(chan struct{}),
		client: client, epoch: 1, change: make(chan struct{}),
	}
	go u.keep(run, client)
	return u, id, nil
}

// Close ends the connection.
func (u *Unit) Close() error {
	u.cancel()
	<-u.done
	return nil
}

// keep replaces the connection each time it ends.
func (u *Unit) keep(ctx context.Context, client *hsmapi.Client) {
	defer close(u.done)
	for {
		select {
		case <-client.Done():
			u.log.Warn("unit gone", "socket", u.socket)
		case <-ctx.Done():
		}
		u.set(nil)
		_ = client.Close()
		if client = u.redial(ctx); client == nil {
			return
		}
		u.set(client)
		u.log.Info("unit is back", "esn", u.esn)
	}
}

func (u *Unit) redial(ctx context.Context) *hsmapi.Client {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		client, err := hsmapi.Dial(ctx, u.socket)
		if err != nil {
			continue
		}
		id, err := u.identify(ctx, client)
		if err == nil && id.ESN == u.esn {
			return client
		}
		u.log.Error("not the unit that was here before", "want", u.esn, "got", id.ESN, "err", err)
		_ = client.Close()
	}
}

func (u *Unit) identify(ctx context.Context, client *hsmapi.Client) (hsmapi.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return client.Identity(ctx)
}

func (u *Unit) set(client *hsmapi.Client) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.client = client
	if client != nil {
		u.epoch++
	}
	close(u.change)
	u.change = make(chan struct{})
}

// Epoch counts the connections made so far: two different values mean that the
// unit was away in between. ok is false while it is away.
func (u *Unit) Epoch() (epoch int, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.epoch, u.client != nil
}

// Wait returns once the unit has been connected more often than epoch, and the
// new count.
func (u *Unit) Wait(ctx context.Context, epoch int) (int, error) {
	for {
		u.mu.Lock()
		now, here, change := u.epoch, u.client != nil, u.change
		u.mu.Unlock()
		if here && now > epoch {
			return now, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return 0, errkind.Errorf(errkind.Unavailable, "the unit %s does not answer on %s: %w", u.esn, u.socket, context.Cause(ctx))
		}
	}
}

// Do calls fn with the current connection and a bounded context. While the unit
// is away the error's kind is Unavailable.
func (u *Unit) Do(ctx context.Context, fn func(context.Context, *hsmapi.Client) error) error {
	u.mu.Lock()
	client := u.client
	u.mu.Unlock()
	if client == nil {
		return errkind.Errorf(errkind.Unavailable, "the unit %s does not answer on %s; is hsmd running?", u.esn, u.socket)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return fn(ctx, client)
}
