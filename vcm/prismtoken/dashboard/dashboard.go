// Package dashboard gathers the state of a token service for those who watch
// it: the facts of getStatus, and a notice for each thing that needs attention.
package dashboard

import (
	"context"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Config is what a dashboard looks at.
type Config struct {
	Store    *store.Store
	Module   *tsm.Module
	Keys     *keystore.Keystore
	Accounts *accounts.Accounts
	// CertificateExpires is when the TLS certificate does.
	CertificateExpires func() time.Time
	Clock              clock.Clock // the host's view of business time
	Quota              int64       // of the disk, bytes
	Port               string      // address of the token service, for port.Uri
}

// Dashboard reports the state. It is safe for concurrent use.
type Dashboard struct{ cfg Config }

// New returns a dashboard.
func New(cfg Config) *Dashboard { return &Dashboard{cfg} }

// Notice is one thing that needs attention. Codes are stable.
type Notice struct {
	Code string // an IDENT, such as "PToken.TxCounterLow"
	Text string
}

// Status is the state at one moment.
type Status struct {
	Info    map[string]string // keys as getStatus gives them
	Notices []Notice
}

// Status gathers facts and notices.
func (d *Dashboard) Status(ctx context.Context) (Status, error) { return Status{}, nil }
