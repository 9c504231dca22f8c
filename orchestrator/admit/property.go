package admit

import (
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// Change is an admitted change of one property.
type Change struct {
	Properties lifecycle.Properties
	// Protect means that the partition's key is to be put under ShareKey, or
	// under none if that is empty; Share then opens it.
	Protect  bool
	ShareKey string
	Share    []byte
}

// Property decides on the change of one property. It changes to the exact value
// that a request of the tenant names, or not at all; the request stays usable
// until it expires.
func (u Unit) Property(v lifecycle.Record, file []byte, name, value string) (Change, error) {
	switch v.State {
	case lifecycle.Created, lifecycle.Stopped, lifecycle.Failed:
	case lifecycle.Deleting:
		return Change{}, errkind.Errorf(errkind.Mode, "VCM %s is %s: it is being deleted", v.UUID, v.State)
	default:
		return Change{}, errkind.Errorf(errkind.Mode, "VCM %s is %s: stop it before its properties are changed", v.UUID, v.State)
	}
	name = strings.ReplaceAll(name, "-", "_")
	canonical, err := request.CanonicalValue(name, value)
	if err != nil {
		return Change{}, err
	}
	r, err := u.read(file, request.SetProperties)
	if err != nil {
		return Change{}, err
	}
	if err := u.verify(r, v.Properties.TenantRequestKey, v.UUID); err != nil {
		return Change{}, err
	}
	asked, ok := r.Properties.Value(name)
	if !ok {
		return Change{}, errkind.Errorf(errkind.Refused, "invalid property: the request does not change %s; it changes %s",
			name, strings.Join(r.Properties.Names(), ", "))
	}
	if asked != canonical {
		return Change{}, errkind.Errorf(errkind.Refused, "invalid property value: %s mismatch: the request says %q", name, asked)
	}
	c, err := u.change(v, r, name)
	if err != nil {
		return Change{}, err
	}
	return c, u.check(c.Properties, v.UUID)
}

// change takes the property from the request, whose value is the one to set.
func (u Unit) change(v lifecycle.Record, r *request.Request, name string) (Change, error) {
	c := Change{Properties: v.Properties}
	p, ask := &c.Properties, r.Properties
	switch name {
	case request.PropertyName:
		p.Name = *ask.Name
	case request.PropertyAutostart:
		p.Autostart = *ask.Autostart
	case request.PropertySerialCardreader:
		p.SerialCardreader = *ask.SerialCardreader
	case request.PropertyFeatures:
		have, err := u.Entitlement.Features.Admit(*ask.Features)
		if err != nil {
			return c, err
		}
		p.Features = uint32(have)
	case request.PropertyIPAddress:
		a, err := u.address(*ask.IPAddress, v.UUID)
		if err != nil {
			return c, err
		}
		p.IPAddress = a.String()
	case request.PropertyConductorPort:
		p.ConductorPort = *ask.ConductorPort
	case request.PropertyRequestKey:
		p.TenantRequestKey = request.KeyText(ask.RequestKey)
	case request.PropertyRestrictStartup:
		return restrict(v, r)
	default:
		return c, errkind.Errorf(errkind.Internal, "property %s has no rule", name)
	}
	return c, nil
}

// restrict switches restrict-startup. The partition's key follows: under the
// tenant's share key, or freed by the tenant's share.
func restrict(v lifecycle.Record, r *request.Request) (Change, error) {
	c := Change{Properties: v.Properties, Protect: true, ShareKey: r.ShareKey, Share: r.Share}
	on := *r.Properties.RestrictStartup
	if v.Properties.RestrictStartup && len(r.Share) == 0 {
		if on {
			c.Protect = false // already so; a new share key would need the old share
			return c, nil
		}
		return c, errkind.Errorf(errkind.Refused,
			"the request carries no share of the VCM's key, without which nobody can lift restrict-startup; ask the tenant for one made for this unit")
	}
	if !v.Properties.RestrictStartup && !on {
		c.Protect = false
	}
	c.Properties.RestrictStartup = on
	return c, nil
}

// Info describes a property for people.
type Info struct{ Name, Values, Description string }

// Properties describes every property that can be set.
func Properties() []Info {
	const flag = "true or false"
	return []Info{
		{request.PropertyName, "0 to 64 printable characters", "the VCM's name in the provider's output"},
		{request.PropertyAutostart, flag, "start the VCM after a reboot; not together with restrict_startup"},
		{request.PropertyRestrictStartup, flag, "start the VCM only with a start request of its tenant; not together with autostart"},
		{request.PropertySerialCardreader, flag, "the VCM has the serial card reader; one VCM of a unit at a time"},
		{request.PropertyFeatures, "names separated by |, or a hexadecimal word", "optional features, a subset of the platform's"},
		{request.PropertyIPAddress, "an address in the VCM network", "where the tenant reaches the VCM"},
		{request.PropertyConductorPort, "a number from 1024 to 65535", "TCP port of the Conductor, the low-level API; 5100 unless it is set"},
		{request.PropertyRequestKey, "a public key in authorized_keys form", "verifies the tenant's requests; a change is signed by the current key"},
	}
}
