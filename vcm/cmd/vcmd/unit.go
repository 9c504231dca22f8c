package main

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/keyfd"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// unitGrace is how long a VCM waits for a unit that went away without a word, as one
// that was killed does. Meanwhile it issues as long as what it has leased lasts and
// its store may grow without the unit's counter.
const unitGrace = 30 * time.Second

// unit is the physical module, as far as the VCM can reach it: over one channel, and
// after that has ended over the next one.
type unit struct {
	opened hsmapi.Opened
	grace  time.Duration

	mu      sync.Mutex
	channel *hsmapi.Channel
	next    chan struct{} // closed when another channel takes its place
}

// openUnit opens the partition over the inherited channel.
func openUnit(ctx context.Context, f *os.File) (*unit, *keyfd.Key, error) {
	channel, err := hsmapi.NewChannel(f)
	if err != nil {
		return nil, nil, err
	}
	opened, key, err := channel.Open(ctx)
	if err != nil {
		_ = channel.Close()
		return nil, nil, errkind.Errorf(errkind.Of(err), "open the partition: %w", err)
	}
	return &unit{opened: opened, grace: unitGrace, channel: channel, next: make(chan struct{})}, key, nil
}

// resume goes on over another channel and returns the unit's clock. The counter stands
// at known or below, or somebody else has used the partition meanwhile.
func (u *unit) resume(ctx context.Context, f *os.File, known uint64) (hsmapi.Time, error) {
	next, err := hsmapi.NewChannel(f)
	if err != nil {
		return hsmapi.Time{}, err
	}
	now, err := next.Resume(ctx, u.opened.Ticket)
	switch {
	case err != nil:
		err = errkind.Errorf(errkind.Of(err), "resume the partition: %w", err)
	case now.UUID != u.opened.UUID || now.ModuleID != u.opened.ModuleID || now.Identity.ESN != u.opened.Identity.ESN:
		err = errkind.Errorf(errkind.Integrity, "the module resumed partition %s of unit %s instead of %s of %s",
			now.UUID, now.Identity.ESN, u.opened.UUID, u.opened.Identity.ESN)
	case now.TestMode != u.opened.TestMode || now.Identity.FirmwareID != u.opened.Identity.FirmwareID || now.Identity.HardwareID != u.opened.Identity.HardwareID:
		err = errkind.Errorf(errkind.Mode, "the module came back with other firmware or in another mode, and the VCM must be started again")
	case now.Counter > known:
		err = errkind.Errorf(errkind.Integrity, "the module's counter stands at %d, above %d: another process has used the partition, and the VCM must be started again", now.Counter, known)
	}
	if err != nil {
		_ = next.Close()
		return hsmapi.Time{}, err
	}
	u.mu.Lock()
	before := u.channel
	close(u.next)
	u.channel, u.next = next, make(chan struct{})
	u.mu.Unlock()
	_ = before.Close()
	return now.Time, nil
}

// current is the channel, and what is closed when it is not that any more.
func (u *unit) current() (*hsmapi.Channel, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.channel, u.next
}

// now is the channel for a call that fails if the unit is away.
func (u *unit) now() *hsmapi.Channel {
	channel, _ := u.current()
	return channel
}

// away reports whether the channel has ended.
func (u *unit) away() bool {
	select {
	case <-u.now().Done():
		return true
	default:
		return false
	}
}

func (u *unit) close() { _ = u.now().Close() }

// Raise implements store.Counter.
func (u *unit) Raise(ctx context.Context, v uint64) (uint64, error) {
	return u.now().Raise(ctx, v)
}

// notice is how long it takes at most until the channel is seen to have ended that a
// call has failed on.
const notice = 50 * time.Millisecond

// Lease implements speed.Lessor. A client need not notice a unit that is started again
// at once: the call waits for it.
func (u *unit) Lease(ctx context.Context, tokens int) (hsmapi.Leased, error) {
	for {
		channel, next := u.current()
		got, err := channel.Lease(ctx, tokens)
		if !errkind.Is(err, errkind.Unavailable) {
			return got, err
		}
		select {
		case <-channel.Done():
		case <-time.After(notice): // it was the unit that said so
			return got, err
		case <-ctx.Done():
			return got, err
		}
		if channel.Dismissed() {
			return got, err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return got, err
		}
	}
}

// gone returns when the unit is gone for good, and why. Until then it waits for it.
func (u *unit) gone(ctx context.Context, log *slog.Logger) error {
	for {
		channel, next := u.current()
		select {
		case <-ctx.Done():
			return nil
		case <-next: // before we knew that the unit was away
			continue
		case <-channel.Done():
		}
		if channel.Dismissed() {
			return errkind.Errorf(errkind.Unavailable, "the physical module was switched off, or saw a tamper event; 'hsmd show' says which")
		}
		log.Warn("the unit is away", "patience", u.grace)
		select {
		case <-ctx.Done():
			return nil
		case <-next:
			log.Info("the unit is back")
		case <-time.After(u.grace):
			return errkind.Errorf(errkind.Unavailable, "the physical module has been away for %s; start hsmd again", u.grace)
		}
	}
}
