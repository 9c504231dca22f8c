// Package tokenadmin is the prismtoken service of a VCM over SSH: its tenant
// administers users, preferences, keys and certificates, and issues tokens.
//
// The holder of the service's client key is the tenant, who may do everything
// here. What a session does is audited under its key, and the tokens it issues
// are its own to fetch again.
package tokenadmin

import (
	"context"
	"log/slog"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
	"github.com/tesserae-hsm/tesserae/vcm/maintenance"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/servercert"
)

// Speed lets issuing calls pass at the rate that the VCM is rated for.
type Speed interface {
	Take(ctx context.Context) error
}

// Config is what the service administers.
type Config struct {
	Accounts    *accounts.Accounts
	Keys        *keystore.Keystore
	POS         *pos.Service
	Module      *tsm.Module
	Dashboard   *dashboard.Dashboard
	Certificate *servercert.Certificate
	Address     string // host:port of the token service
	Speed       Speed  // nil: not limited
	Maintenance *maintenance.Mode
	// Attest has the unit sign the module's public key record and returns what
	// is appended to the record for a KMC; without it the record stays unsigned.
	Attest           func(ctx context.Context, record string) (string, error)
	Conductor        *conductor.Server
	ConductorAddress string // host:port of its TCP listener
	Log              *slog.Logger
}

// Service makes a handler for each session.
type Service struct{ cfg Config }

// New returns the service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg}
}

// Handler returns the handler of one session; actor is the key that opened it.
func (s *Service) Handler(actor accounts.Actor) prismadmin.PrismAdmin {
	return &handler{Config: s.cfg, actor: actor}
}

// handler serves one session.
type handler struct {
	Config
	actor accounts.Actor
}

// everything is what the tenant may.
const everything = ^accounts.Permission(0)

// unix is t in seconds, 0 for the zero time, which is "never".
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

// Status reports facts and notices.
func (h *handler) Status(ctx context.Context) (*prismadmin.Status, error) {
	st, err := h.Dashboard.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := &prismadmin.Status{Info: st.Info, Alerts: make([]string, 0, len(st.Notices))}
	for _, n := range st.Notices {
		out.Alerts = append(out.Alerts, n.Code+" "+n.Text)
	}
	if st := h.Maintenance.State(); st.On {
		out.Alerts = append(out.Alerts, maintenanceNotice(st))
	}
	return out, nil
}

// SmStatus is Status; the module and the service are seen together.
func (h *handler) SmStatus(ctx context.Context) (*prismadmin.Status, error) { return h.Status(ctx) }

// RoleList lists the roles a user can have.
func (h *handler) RoleList(context.Context) ([]*prismadmin.Role, error) {
	var out []*prismadmin.Role
	for _, r := range accounts.Roles() {
		out = append(out, &prismadmin.Role{Name: r.Name, Description: r.About})
	}
	return out, nil
}

// PrefList lists preferences by prefix.
func (h *handler) PrefList(_ context.Context, prefix string) ([]*prismadmin.Preference, error) {
	out := []*prismadmin.Preference{}
	for _, p := range h.Accounts.Preferences().List(prefix) {
		out = append(out, preference(p))
	}
	return out, nil
}

// PrefSet changes one preference.
func (h *handler) PrefSet(ctx context.Context, name, value string) (*prismadmin.Preference, error) {
	p, err := h.Accounts.Preferences().Set(ctx, h.actor, everything, name, value)
	if err != nil {
		return nil, err
	}
	return preference(p), nil
}

func preference(p accounts.Preference) *prismadmin.Preference {
	return &prismadmin.Preference{
		Name: p.Name, Value: p.Value, DefaultValue: p.Default, Type: p.Type, Range: p.Range(),
		Description: p.Description, ChangeableBy: p.ChangeableBy,
	}
}

// TokenEndpoint tells how to reach the token service and its certificate.
func (h *handler) TokenEndpoint(context.Context) (*prismadmin.TokenEndpoint, error) {
	return &prismadmin.TokenEndpoint{
		Address: h.Address, CertificatePem: h.Certificate.PEM(), Sha256: h.Certificate.SHA256(), NotAfter: h.Certificate.Expires().Unix(),
	}, nil
}

// TlsGenerate replaces the certificate by a new self-signed one.
func (h *handler) TlsGenerate(ctx context.Context) (*prismadmin.TokenEndpoint, error) {
	if err := h.Certificate.Generate(ctx, h.actor); err != nil {
		return nil, err
	}
	return h.TokenEndpoint(ctx)
}

// TlsImport replaces the certificate by a chain and its key.
func (h *handler) TlsImport(ctx context.Context, chainPem, keyPem string) (*prismadmin.TokenEndpoint, error) {
	if err := h.Certificate.Import(ctx, h.actor, chainPem, keyPem); err != nil {
		return nil, err
	}
	return h.TokenEndpoint(ctx)
}
