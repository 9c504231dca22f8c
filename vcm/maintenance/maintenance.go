// Package maintenance is a VCM's mode of operation: while its tenant has put it
// into maintenance mode it issues no tokens, and its provider may stop it.
// Everything else goes on: sign-ins, verification, keys, users, logs.
package maintenance

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// The mode is one record of the store.
const (
	bucket = "maintenance"
	record = "mode"
)

// Reason is what is said to who asks for a token meanwhile.
const Reason = "the tenant has put this VCM into maintenance mode; it issues no tokens until he ends it"

// Config is what Mode needs.
type Config struct {
	Store *store.Store
	Audit func(tx *store.Tx, e auditlog.Entry) error
	Clock clock.Clock
}

// State is the mode and who set it last; the zero State was never changed.
type State struct {
	On    bool      `json:"on"`
	Since time.Time `json:"since"`
	By    string    `json:"by"`
}

// Mode keeps the mode.
type Mode struct {
	cfg   Config
	set   sync.Mutex // changes come one after the other, here as on disk
	state atomic.Pointer[State]
}

// Open reads the mode.
func Open(ctx context.Context, cfg Config) (*Mode, error) {
	m := &Mode{cfg: cfg}
	err := cfg.Store.View(ctx, func(tx *store.Tx) error { return m.read(tx) })
	return m, err
}

func (m *Mode) read(tx *store.Tx) error {
	var s State
	value, err := tx.Bucket(bucket).Get([]byte(record))
	if err != nil {
		return err
	}
	if value != nil {
		if err := json.Unmarshal(value, &s); err != nil {
			return errkind.Errorf(errkind.Integrity, "the record of the maintenance mode: %w", err)
		}
	}
	m.state.Store(&s)
	return nil
}

// State returns the mode.
func (m *Mode) State() State { return *m.state.Load() }

// Set changes the mode on behalf of by. Calls that are under way finish; those
// that come after Set has returned see the new mode. It may use the store's
// reserve, so that a VCM over its quota can be stopped.
func (m *Mode) Set(ctx context.Context, by string, on bool) (State, error) {
	m.set.Lock()
	defer m.set.Unlock()
	err := m.cfg.Store.Shrink(ctx, func(tx *store.Tx) error {
		value, err := tx.Bucket(bucket).Get([]byte(record))
		if err != nil {
			return err
		}
		var was State
		if value != nil {
			if err := json.Unmarshal(value, &was); err != nil {
				return errkind.Errorf(errkind.Integrity, "the record of the maintenance mode: %w", err)
			}
		}
		if was.On == on {
			return nil
		}
		next := State{On: on, Since: m.cfg.Clock.Now().UTC().Truncate(time.Second), By: by}
		if value, err = json.Marshal(next); err != nil {
			return errkind.Errorf(errkind.Internal, "encode the maintenance mode: %w", err)
		}
		if err := tx.Bucket(bucket).Put([]byte(record), value); err != nil {
			return err
		}
		return m.cfg.Audit(tx, auditlog.Entry{
			Time: next.Since, Kind: "maintenance.set", Actor: by, Detail: map[string]string{"before": word(was.On), "after": word(on)},
		})
	})
	if err != nil {
		return State{}, err
	}
	if err := m.cfg.Store.View(ctx, m.read); err != nil {
		return State{}, err
	}
	return m.State(), nil
}

func word(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// Turn is who lets issuing calls pass.
type Turn interface {
	Take(ctx context.Context) error
}

// Gate refuses issuing calls in maintenance mode, else it leaves them to next.
type Gate struct {
	Mode    *Mode
	Refusal func() error // in the words of the service
	Next    Turn         // nil lets everything pass
}

// Take is called before a token is issued.
func (g Gate) Take(ctx context.Context) error {
	if g.Mode.State().On {
		return g.Refusal()
	}
	if g.Next == nil {
		return nil
	}
	return g.Next.Take(ctx)
}
