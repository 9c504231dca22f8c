package request

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/licensing"
)

// Names of the properties, as in requests and in vcmadmin properties set.
const (
	PropertyName             = "name"
	PropertyAutostart        = "autostart"
	PropertyRestrictStartup  = "restrict_startup"
	PropertySerialCardreader = "serial_cardreader"
	PropertyFeatures         = "features"
	PropertyIPAddress        = "ip_address"
	PropertyConductorPort    = "conductor_port"
	PropertyRequestKey       = "k_tenant_req"
)

// MaxName is the longest name of a VCM.
const MaxName = 64

// Properties are the ones a request speaks of; nil: it says nothing about it.
type Properties struct {
	Name             *string
	Autostart        *bool
	RestrictStartup  *bool
	SerialCardreader *bool
	Features         *licensing.Features
	IPAddress        *string
	ConductorPort    *uint16
	RequestKey       ssh.PublicKey
}

// PropertyNames lists every property in the order of the canonical form.
func PropertyNames() []string {
	return []string{PropertyName, PropertyAutostart, PropertyRestrictStartup, PropertySerialCardreader,
		PropertyFeatures, PropertyIPAddress, PropertyConductorPort, PropertyRequestKey}
}

// Names lists the properties that p speaks of, in canonical order.
func (p Properties) Names() []string {
	var names []string
	for _, name := range PropertyNames() {
		if _, ok := p.Value(name); ok {
			names = append(names, name)
		}
	}
	return names
}

// Value returns the canonical text of the property called name, false if p says
// nothing about it.
func (p Properties) Value(name string) (string, bool) {
	switch name {
	case PropertyName:
		return text(p.Name)
	case PropertyAutostart:
		return flag(p.Autostart)
	case PropertyRestrictStartup:
		return flag(p.RestrictStartup)
	case PropertySerialCardreader:
		return flag(p.SerialCardreader)
	case PropertyFeatures:
		if p.Features != nil {
			return p.Features.Hex(), true
		}
	case PropertyIPAddress:
		return text(p.IPAddress)
	case PropertyConductorPort:
		if p.ConductorPort != nil {
			return strconv.Itoa(int(*p.ConductorPort)), true
		}
	case PropertyRequestKey:
		if p.RequestKey != nil {
			return KeyText(p.RequestKey), true
		}
	}
	return "", false
}

// Set gives the property called name a value as a person may write it: true or
// True, features as names or as a word. An unknown name wraps ErrUnknownProperty.
func (p *Properties) Set(name, value string) (err error) {
	switch name {
	case PropertyName:
		p.Name = &value
	case PropertyAutostart:
		p.Autostart, err = parseFlag(name, value)
	case PropertyRestrictStartup:
		p.RestrictStartup, err = parseFlag(name, value)
	case PropertySerialCardreader:
		p.SerialCardreader, err = parseFlag(name, value)
	case PropertyFeatures:
		var f licensing.Features
		if f, err = licensing.ParseFeatures(value); err == nil {
			p.Features = &f
		}
	case PropertyIPAddress:
		p.IPAddress = &value
	case PropertyConductorPort:
		p.ConductorPort, err = parsePort(name, value)
	case PropertyRequestKey:
		p.RequestKey, err = ParseKey(value)
	default:
		return &classError{class: ErrUnknownProperty, err: errkind.Errorf(errkind.Invalid,
			"there is no property %.40q; the properties are %s", name, strings.Join(PropertyNames(), ", "))}
	}
	if err != nil {
		return err
	}
	return p.check()
}

// CanonicalValue returns value, as a person may write it, in the form in which
// Properties.Value prints it.
func CanonicalValue(name, value string) (string, error) {
	var p Properties
	if err := p.Set(name, value); err != nil {
		return "", err
	}
	canonical, _ := p.Value(name)
	return canonical, nil
}

func (p Properties) check() error {
	if p.Name != nil {
		if err := CheckName(*p.Name); err != nil {
			return err
		}
	}
	if p.IPAddress != nil {
		if a, err := netip.ParseAddr(*p.IPAddress); err != nil || a.String() != *p.IPAddress || a.Zone() != "" {
			return formErrorf("ip_address %.60q is no IP address in its shortest form", *p.IPAddress)
		}
	}
	if p.RequestKey != nil && !plainKey(p.RequestKey) {
		return formErrorf("k_tenant_req is a certificate; a plain key is needed")
	}
	if p.Autostart != nil && p.RestrictStartup != nil && *p.Autostart && *p.RestrictStartup {
		return formErrorf("autostart and restrict_startup exclude each other")
	}
	return nil
}

// CheckName reports whether name can be a VCM's name.
func CheckName(name string) error {
	if len(name) > MaxName {
		return formErrorf("a name has at most %d characters, this one %d", MaxName, len(name))
	}
	for i := 0; i < len(name); i++ {
		if name[i] < 0x20 || name[i] > 0x7e {
			return formErrorf("a name is printable ASCII; character %d is not", i+1)
		}
	}
	if name != strings.TrimSpace(name) {
		return formErrorf("a name neither begins nor ends with a space")
	}
	return nil
}

// KeyText prints a public key in authorized_keys form, without comment.
func KeyText(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// ParseKey reads a public key in authorized_keys form, a comment allowed.
func ParseKey(text string) (ssh.PublicKey, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(options) > 0 || strings.TrimSpace(string(rest)) != "" || !plainKey(key) {
		return nil, formErrorf("%.60q is no public key in authorized_keys form", text)
	}
	return key, nil
}

func text(p *string) (string, bool) {
	if p == nil {
		return "", false
	}
	return *p, true
}

func flag(p *bool) (string, bool) {
	if p == nil {
		return "", false
	}
	return strconv.FormatBool(*p), true
}

func parseFlag(name, value string) (*bool, error) {
	switch value {
	case "true", "True":
		v := true
		return &v, nil
	case "false", "False":
		v := false
		return &v, nil
	}
	return nil, formErrorf("%s is true or false, not %.40q", name, fmt.Sprint(value))
}

func parsePort(name, value string) (*uint16, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return nil, formErrorf("%s is a number, not %.40q", name, value)
	}
	if err := vcmcontrol.CheckConductorPort(n); err != nil {
		return nil, formErrorf("%s: %w", name, err)
	}
	port := uint16(n)
	return &port, nil
}
