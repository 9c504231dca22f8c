// Package tokenadmin is the prismtoken service of a VCM over SSH: its tenant
// administers users, preferences, keys and certificates, and issues tokens.
package tokenadmin

import (
	"log/slog"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/servercert"
)

// Config is what the service administers.
type Config struct {
	Accounts    *accounts.Accounts
	Keys        *keystore.Keystore
	POS         *pos.Service
	Module      *tsm.Module
	Dashboard   *dashboard.Dashboard
	Certificate *servercert.Certificate
	Address     string // host:port of the token service
	Log         *slog.Logger
}

// Service makes a handler for each session.
type Service struct{ cfg Config }

// New returns the service.
func New(cfg Config) *Service { return &Service{cfg} }

// Handler returns the handler of one session; actor is the key that opened it.
func (s *Service) Handler(actor accounts.Actor) prismadmin.PrismAdmin { return nil }
