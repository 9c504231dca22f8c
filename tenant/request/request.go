// Package request is the tenant request file, the only document that a tenant
// sends to a service provider: create a VCM for me, start mine, change its
// properties.
//
// # Canonical form
//
// A request is a signed text file (internal/armor) with one byte form. Parse
// refuses anything that Sign would not have written, so what inspect-request
// shows is all there is, and ssh-keygen can check the signature:
//
//	tesserae tenant request
//	Kind: create
//	Request-ID: 5f0c...
//	Created: 2026-03-01T10:00:00Z
//	Not-Before: 2026-03-01T09:59:00Z
//	Expires: 2026-03-08T10:00:00Z
//	SSHAdmin-Key: ssh-ed25519 AAAA...
//	Request-Key: ssh-ed25519 AAAA...
//	Property.name: shop-7
//	Property.autostart: true
//	-----BEGIN SSH SIGNATURE-----
//
// A create request is signed by the very key it introduces; later requests are
// signed by the key that the VCM's record holds. Replacing that key is a
// property change like any other, signed by the key that is replaced.
package request

import (
	"encoding/base64"
	"errors"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Namespace is the SSHSIG namespace of tenant requests.
const Namespace = "tesserae-request"

const title = "tesserae tenant request"

// The classes of failure. Errors wrap exactly one of them.
var (
	ErrForm            = errors.New("not a tenant request")
	ErrUnknownProperty = errors.New("unknown property")
	ErrSignature       = errors.New("signature failure")
	ErrExpired         = errors.New("expired")
	ErrNotYetValid     = errors.New("not yet valid")
	ErrWrongVCM        = errors.New("wrong VCM")
)

// Kind is what the tenant asks for.
type Kind string

// The kinds.
const (
	Create        Kind = "create"
	Start         Kind = "start"
	SetProperties Kind = "setproperties"
)

// Request is one tenant request.
type Request struct {
	Kind    Kind
	ID      string // UUID of the request itself
	Created time.Time
	// The request is valid from NotBefore until Expires, both included. Times
	// have whole seconds.
	NotBefore time.Time
	Expires   time.Time
	// VCM is the UUID of the VCM that is meant; empty for Create.
	VCM string
	// SSHAdminKey is the tenant's first key for the VCM's sshadmin service.
	// Create only.
	SSHAdminKey ssh.PublicKey
	// RequestKey verifies this and later requests. Create only.
	RequestKey ssh.PublicKey
	// ShareKey is the tenant's public share key (hsmapi/tenantshare), present
	// where the request asks for restrict-startup.
	ShareKey string
	// Properties are the tenant's wishes: all of them for Create, those to
	// change for SetProperties, none for Start.
	Properties Properties
	// Share is the tenant's half of the partition key, sealed to the unit: what
	// starts a restrict-startup VCM, or frees it from restrict-startup.
	Share []byte

	file []byte // what was parsed
}

// check reports whether the request makes sense in itself.
func (r *Request) check() error {
	if err := canonicalUUID("Request-ID", r.ID); err != nil {
		return err
	}
	if err := r.checkTimes(); err != nil {
		return err
	}
	if r.Kind != Create {
		if err := canonicalUUID("VCM", r.VCM); err != nil {
			return err
		}
		if r.SSHAdminKey != nil || r.RequestKey != nil {
			return formErrorf("SSHAdmin-Key and Request-Key belong to a create request only")
		}
	}
	if r.ShareKey != "" {
		if err := tenantshare.CheckKey(r.ShareKey); err != nil {
			return formErrorf("Share-Key: %v", err)
		}
	}
	if err := r.Properties.check(); err != nil {
		return err
	}
	restrict := r.Properties.RestrictStartup
	if wanted := restrict != nil && *restrict; wanted != (r.ShareKey != "") {
		return formErrorf("Share-Key and restrict_startup=true belong together")
	}
	return r.checkKind()
}

func (r *Request) checkKind() error {
	switch r.Kind {
	case Create:
		switch {
		case r.VCM != "" || r.Share != nil:
			return formErrorf("a create request names no VCM and carries no share")
		case !plainKey(r.SSHAdminKey) || !plainKey(r.RequestKey):
			return formErrorf("a create request carries an SSHAdmin-Key and a Request-Key")
		case r.Properties.RequestKey != nil:
			return formErrorf("a create request introduces its key as Request-Key, not as a property")
		case r.Properties.IPAddress != nil:
			return formErrorf("the provider chooses the IP address of a new VCM")
		}
	case Start:
		if len(r.Properties.Names()) > 0 {
			return formErrorf("a start request changes no property")
		}
	case SetProperties:
		restrict := r.Properties.RestrictStartup
		switch {
		case len(r.Properties.Names()) == 0:
			return formErrorf("a setproperties request changes at least one property")
		case r.Share != nil && (restrict == nil || *restrict):
			return formErrorf("a share belongs to restrict_startup=false only")
		}
	default:
		return formErrorf("kind %.20q is none of create, start, setproperties", string(r.Kind))
	}
	return nil
}

func (r *Request) checkTimes() error {
	for _, t := range []time.Time{r.Created, r.NotBefore, r.Expires} {
		if t.Nanosecond() != 0 || t.Year() < 1970 || t.Year() > 9999 {
			return formErrorf("time %s: whole seconds from 1970 to 9999", t)
		}
	}
	if r.Expires.Before(r.NotBefore) {
		return formErrorf("it expires before it becomes valid")
	}
	return nil
}

// plainKey accepts a public key but no certificate.
func plainKey(key ssh.PublicKey) bool {
	if key == nil {
		return false
	}
	_, certificate := key.(*ssh.Certificate)
	return !certificate
}

func canonicalUUID(name, text string) error {
	id, err := uuid.Parse(text)
	if err != nil || id.String() != text {
		return formErrorf("%s %.60q is no UUID in its usual lower-case form", name, text)
	}
	return nil
}

func formErrorf(format string, args ...any) error {
	return &classError{class: ErrForm, err: errkind.Errorf(errkind.Invalid, "tenant request: "+format, args...)}
}

// classError adds a class to an error without changing its text or kind.
type classError struct {
	class error
	err   error
}

func (e *classError) Error() string   { return e.err.Error() }
func (e *classError) Unwrap() []error { return []error{e.err, e.class} }

// encodeShare prints a sealed share on one line.
func encodeShare(share []byte) string { return base64.StdEncoding.EncodeToString(share) }

func decodeShare(text string) ([]byte, error) {
	share, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(share) == 0 {
		return nil, formErrorf("Start-Share is not base64")
	}
	return share, nil
}
