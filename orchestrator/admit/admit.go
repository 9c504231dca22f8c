// Package admit answers one question: may this request happen? It is pure: what
// is known about the unit, its VCMs and both clocks comes in as values, and a
// refusal comes out as an error whose kind and text say what to do.
package admit

import (
	"errors"
	"net/netip"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// DefaultDiskQuota is a VCM's room for persistent data.
const DefaultDiskQuota = 16 << 20

// Unit is what a decision depends on besides the request.
type Unit struct {
	Entitlement licensing.Entitlement
	Network     network.Network
	// VCMs are all records of the unit, pending ones included.
	VCMs []lifecycle.Record
	// Clock is the module's clock, which counts, and the host's, for errors.
	Clock hsmapi.Time
}

// Choices are what the provider chose at creation; nil takes the tenant's wish.
type Choices struct {
	Name             string
	Autostart        *bool
	SerialCardreader *bool
	Features         *licensing.Features
	IPAddress        string // empty: to be allocated
}

// Creation is an admitted request for a VCM.
type Creation struct {
	Properties  lifecycle.Properties // IPAddress is empty if it is to be allocated
	RequestID   string
	SSHAdminKey string
	ShareKey    string
}

// Create decides on a create request and the provider's choices.
func (u Unit) Create(file []byte, c Choices) (Creation, error) {
	r, err := u.read(file, request.Create)
	if err != nil {
		return Creation{}, err
	}
	if err := u.verify(r, request.KeyText(r.RequestKey), ""); err != nil {
		return Creation{}, err
	}
	p, err := u.merge(r, c)
	if err != nil {
		return Creation{}, err
	}
	if err := u.check(p, ""); err != nil {
		return Creation{}, err
	}
	if err := u.room(); err != nil {
		return Creation{}, err
	}
	return Creation{Properties: p, RequestID: r.ID, SSHAdminKey: request.KeyText(r.SSHAdminKey), ShareKey: r.ShareKey}, nil
}

// merge takes the provider's choices over the tenant's wishes.
func (u Unit) merge(r *request.Request, c Choices) (lifecycle.Properties, error) {
	wish := r.Properties
	p := lifecycle.Properties{
		Name:             c.Name,
		Autostart:        choose(c.Autostart, wish.Autostart),
		RestrictStartup:  choose(nil, wish.RestrictStartup),
		SerialCardreader: choose(c.SerialCardreader, wish.SerialCardreader),
		ConductorPort:    vcmcontrol.DefaultConductorPort,
		DiskQuota:        DefaultDiskQuota,
		TenantRequestKey: request.KeyText(r.RequestKey),
	}
	if p.Name == "" && wish.Name != nil {
		p.Name = *wish.Name
	}
	if err := request.CheckName(p.Name); err != nil {
		return p, err
	}
	if wish.ConductorPort != nil {
		p.ConductorPort = *wish.ConductorPort
	}
	want := u.Entitlement.Features.Default()
	switch {
	case c.Features != nil:
		want = *c.Features
	case wish.Features != nil:
		want = *wish.Features
	}
	have, err := u.Entitlement.Features.Admit(want)
	if err != nil {
		return p, err
	}
	p.Features = uint32(have)
	if c.IPAddress != "" {
		a, err := u.Network.Check(c.IPAddress, u.Addresses())
		if err != nil {
			return p, err
		}
		p.IPAddress = a.String()
	}
	return p, nil
}

func choose(choice, wish *bool) bool {
	if choice != nil {
		return *choice
	}
	return wish != nil && *wish
}

// check applies the rules that hold between properties, and between VCMs, to
// those of the VCM uuid (empty: a new one).
func (u Unit) check(p lifecycle.Properties, uuid string) error {
	if p.Autostart && p.RestrictStartup {
		return errkind.Errorf(errkind.Refused,
			"autostart and restrict-startup exclude each other: without the tenant's start request such a VCM cannot start")
	}
	if !p.SerialCardreader {
		return nil
	}
	for _, other := range u.VCMs {
		if other.UUID != uuid && other.Properties.SerialCardreader {
			return errkind.Errorf(errkind.Refused,
				"VCM %s has the serial card reader; only one VCM of a unit can have it at a time", other.UUID)
		}
	}
	return nil
}

// room applies the limit on created VCMs.
func (u Unit) room() error {
	most := u.Entitlement.MaxCreated
	if len(u.VCMs) < most {
		return nil
	}
	switch {
	case most <= 1:
		return errkind.Errorf(errkind.Limit,
			"the unit holds %d VCM, all it may without a multi-tenant licence (%s); apply one with 'hsmadmin fet' or delete a VCM",
			len(u.VCMs), licensing.MaxActiveVCMs)
	case most < licensing.MaxVCMs:
		return errkind.Errorf(errkind.Limit,
			"the unit holds %d VCMs, all it may at its speed rating; apply a speed upgrade licence (%s) with 'hsmadmin fet' or delete a VCM",
			len(u.VCMs), licensing.SpeedUpgrade)
	default:
		return errkind.Errorf(errkind.Limit, "the unit holds %d VCMs, all it can; delete a VCM", len(u.VCMs))
	}
}

// Start decides whether the VCM may start, and returns the tenant's share of a
// restrict-startup VCM's key. file is the tenant's start request or empty.
func (u Unit) Start(v lifecycle.Record, file []byte) (share []byte, err error) {
	switch {
	case len(file) > 0:
		if share, err = u.startRequest(v, file); err != nil {
			return nil, err
		}
	case v.Properties.RestrictStartup:
		return nil, errkind.Errorf(errkind.Refused,
			"VCM %s has restrict-startup: it starts only with a start request of its tenant (--request)", v.UUID)
	}
	// The network may have been another one when the VCM was created.
	if _, err := u.address(v.Properties.IPAddress, v.UUID); err != nil {
		return nil, err
	}
	if err := u.active(v.UUID); err != nil {
		return nil, err
	}
	return share, nil
}

func (u Unit) startRequest(v lifecycle.Record, file []byte) ([]byte, error) {
	r, err := u.read(file, request.Start)
	if err != nil {
		return nil, err
	}
	if err := u.verify(r, v.Properties.TenantRequestKey, v.UUID); err != nil {
		return nil, err
	}
	if v.Properties.RestrictStartup && len(r.Share) == 0 {
		return nil, errkind.Errorf(errkind.Refused,
			"the start request carries no share of the VCM's key; ask the tenant for one made for this unit")
	}
	if !v.Properties.RestrictStartup {
		return nil, nil
	}
	return r.Share, nil
}

// active applies the limit on active VCMs to one that is to become active.
func (u Unit) active(uuid string) error {
	n := 0
	for _, v := range u.VCMs {
		if v.UUID != uuid && v.State.Active() {
			n++
		}
	}
	if most := u.Entitlement.MaxActive; n >= most {
		return errkind.Errorf(errkind.Limit,
			"%d VCMs are active and the unit's licence (%s) is for %d; stop one with 'vcmadmin stop' or apply a larger licence with 'hsmadmin fet'",
			n, licensing.MaxActiveVCMs, most)
	}
	return nil
}

// Delete decides whether the VCM may be deleted. force is about its audit log
// only: what runs is never deleted.
func Delete(v lifecycle.Record, force bool) error {
	d, _ := lifecycle.Decide(v.State, lifecycle.Delete)
	if d.Verdict == lifecycle.Refuse {
		return errkind.Errorf(errkind.Mode, "VCM %s is %s: %s", v.UUID, v.State, d.Why)
	}
	if !force && !v.Finalised && v.State != lifecycle.Created && v.State != lifecycle.Deleting {
		return errkind.Errorf(errkind.Refused,
			"VCM %s has an audit log that its tenant has not finalised; ask the tenant to export it, or use --force", v.UUID)
	}
	return nil
}

// Addresses returns the addresses that VCMs of the unit have.
func (u Unit) Addresses() []string {
	var out []string
	for _, v := range u.VCMs {
		if v.Properties.IPAddress != "" {
			out = append(out, v.Properties.IPAddress)
		}
	}
	return out
}

func (u Unit) read(file []byte, kind request.Kind) (*request.Request, error) {
	if len(file) == 0 {
		return nil, errkind.Errorf(errkind.Invalid, "a tenant request of kind %s is needed (--request)", kind)
	}
	r, err := request.Parse(file)
	if err != nil {
		return nil, err
	}
	if r.Kind != kind {
		return nil, errkind.Errorf(errkind.Refused, "the request is of kind %s; one of kind %s is needed", r.Kind, kind)
	}
	return r, nil
}

// verify checks signature, VCM and time, and prints both clocks where time is
// what is wrong.
func (u Unit) verify(r *request.Request, keyText, uuid string) error {
	key, err := request.ParseKey(keyText)
	if err != nil {
		return errkind.Errorf(errkind.Integrity, "request key of VCM %s: %w", uuid, err)
	}
	err = r.Verify(key, uuid, u.Clock.Module)
	if errors.Is(err, request.ErrExpired) || errors.Is(err, request.ErrNotYetValid) {
		return errkind.Errorf(errkind.Refused, "%w (module's clock %s, host's clock %s)",
			err, stamp(u.Clock.Module), stamp(u.Clock.Host))
	}
	return err
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// address is used where a property names an address.
func (u Unit) address(text, uuid string) (netip.Addr, error) {
	taken := make([]string, 0, len(u.VCMs))
	for _, v := range u.VCMs {
		if v.UUID != uuid {
			taken = append(taken, v.Properties.IPAddress)
		}
	}
	return u.Network.Check(text, taken)
}
