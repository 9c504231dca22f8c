// Package vcmfile is the configuration file of a VCM: what the provider's unit
// gives to the tenant once it has created the VCM, and what the tenant needs to
// recognise it. It is a signed text file (internal/armor) with one byte form,
// signed by the unit's key, and it carries the maker's warrant for that key:
// who pins the maker's root needs to believe nobody in between.
package vcmfile

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// Namespace is the SSHSIG namespace of VCM files.
const Namespace = hsmapi.NamespaceVCMFile

const (
	title          = "tesserae vcm file"
	timeLayout     = "2006-01-02T15:04:05Z"
	endpointPrefix = "Endpoint."
	propertyPrefix = "Property."
	controlPrefix  = "Isolation."
)

// File is what the unit certifies about a VCM.
type File struct {
	UUID      string
	ESN       string
	ModuleID  string    // the virtual module's
	RequestID string    // of the create request
	Created   time.Time // whole seconds
	Address   string    // the VCM's IP address
	Endpoints []Endpoint
	// Properties as the provider chose them; all of them are there.
	Properties request.Properties
	// IsolationLevel and Isolation report the last start; empty before the first.
	IsolationLevel string
	Isolation      []Control
	UnitKey        string // authorized_keys form
	Warrant        string // the maker's signed statement about UnitKey, a whole file

	file []byte // what was parsed
}

// Endpoint is one service of the VCM.
type Endpoint struct {
	Service string
	Address string // host:port
}

// Control is one isolation control as found by an attempt inside the sandbox.
type Control struct{ Control, Wanted, Got, Reason, Proof string }

// Endpoint returns the address of a service.
func (f *File) Endpoint(service string) (string, error) {
	for _, e := range f.Endpoints {
		if e.Service == service {
			return e.Address, nil
		}
	}
	return "", errkind.Errorf(errkind.NotFound, "VCM %s has no service %s", f.UUID, service)
}

// Marshal returns the text that the unit signs. Characters in isolation reports
// that a text file cannot hold are replaced.
func (f *File) Marshal() ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	d := armor.Document{Title: title}
	add := func(name, value string) { d.Fields = append(d.Fields, armor.Field{Name: name, Value: value}) }
	add("UUID", f.UUID)
	add("ESN", f.ESN)
	add("Module-ID", f.ModuleID)
	add("Request-ID", f.RequestID)
	add("Created", f.Created.UTC().Format(timeLayout))
	add("Address", f.Address)
	for _, e := range f.Endpoints {
		add(endpointPrefix+e.Service, e.Address)
	}
	for _, name := range f.Properties.Names() {
		value, _ := f.Properties.Value(name)
		add(propertyPrefix+name, value)
	}
	if f.IsolationLevel != "" {
		add("Isolation-Level", clean(f.IsolationLevel))
	}
	for i, c := range f.Isolation {
		add(fmt.Sprintf("%s%02d", controlPrefix, i+1), c.line())
	}
	add("Unit-Key", f.UnitKey)
	add("Warrant", strings.TrimSuffix(f.Warrant, "\n"))
	return d.Marshal()
}

func (f *File) check() error {
	if id, err := uuid.Parse(f.UUID); err != nil || id.String() != f.UUID {
		return invalid("UUID %.60q is no UUID in its usual lower-case form", f.UUID)
	}
	if f.ESN == "" || f.Warrant == "" {
		return invalid("ESN and Warrant are needed")
	}
	if f.Created.Nanosecond() != 0 || f.Created.Year() < 1970 || f.Created.Year() > 9999 {
		return invalid("Created %s: whole seconds from 1970 to 9999", f.Created)
	}
	if a, err := netip.ParseAddr(f.Address); err != nil || a.String() != f.Address {
		return invalid("Address %.60q is no IP address in its shortest form", f.Address)
	}
	for _, e := range f.Endpoints {
		if a, err := netip.ParseAddrPort(e.Address); err != nil || a.String() != e.Address {
			return invalid("Endpoint %s at %.60q is no address and port", e.Service, e.Address)
		}
	}
	if key, err := warrant.ParseKey(f.UnitKey); err != nil || request.KeyText(key) != f.UnitKey {
		return invalid("Unit-Key is no public key without a comment")
	}
	return nil
}

// Attach returns the VCM file: message and the unit's armored SSHSIG over it.
func Attach(message []byte, armored string) ([]byte, error) {
	return armor.Attach(message, []byte(armored))
}

// Parse reads a VCM file. It checks the form and that there is a signature, not
// whose: nothing in the file is to be believed before Verify.
func Parse(file []byte) (*File, error) {
	message, _, err := armor.Split(file)
	if err != nil {
		return nil, fmt.Errorf("VCM file: %w", err)
	}
	d, err := armor.Parse(message, title)
	if err != nil {
		return nil, fmt.Errorf("VCM file: %w", err)
	}
	f := &File{file: bytes.Clone(file)}
	for _, field := range d.Fields {
		if err := f.set(field); err != nil {
			return nil, err
		}
	}
	again, err := f.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, message) {
		return nil, invalid("a field is missing, out of order or not in its only form")
	}
	return f, nil
}

func (f *File) set(field armor.Field) (err error) {
	if service, ok := strings.CutPrefix(field.Name, endpointPrefix); ok {
		f.Endpoints = append(f.Endpoints, Endpoint{Service: service, Address: field.Value})
		return nil
	}
	if name, ok := strings.CutPrefix(field.Name, propertyPrefix); ok {
		return f.Properties.Set(name, field.Value)
	}
	if strings.HasPrefix(field.Name, controlPrefix) {
		c, err := parseControl(field.Value)
		f.Isolation = append(f.Isolation, c)
		return err
	}
	switch field.Name {
	case "UUID":
		f.UUID = field.Value
	case "ESN":
		f.ESN = field.Value
	case "Module-ID":
		f.ModuleID = field.Value
	case "Request-ID":
		f.RequestID = field.Value
	case "Created":
		if f.Created, err = time.Parse(timeLayout, field.Value); err != nil {
			return invalid("Created %.40q is no time like %s", field.Value, timeLayout)
		}
	case "Address":
		f.Address = field.Value
	case "Isolation-Level":
		f.IsolationLevel = field.Value
	case "Unit-Key":
		f.UnitKey = field.Value
	case "Warrant":
		f.Warrant = field.Value + "\n"
	default:
		return invalid("there is no field %q", field.Name)
	}
	return nil
}

// Verify follows the chain: root signed the warrant, the warrant is for this
// unit and its key, that key signed the file. It returns the warrant.
func (f *File) Verify(root ssh.PublicKey) (warrant.Warrant, error) {
	w, err := warrant.Read([]byte(f.Warrant), root)
	if err != nil {
		return warrant.Warrant{}, errkind.Errorf(errkind.Of(err), "VCM file of %s: %w", f.UUID, err)
	}
	if err := w.Matches(f.ESN, f.UnitKey); err != nil {
		return warrant.Warrant{}, errkind.Errorf(errkind.Integrity, "VCM file of %s: %w", f.UUID, err)
	}
	key, err := f.Key()
	if err != nil {
		return warrant.Warrant{}, err
	}
	if _, err := armor.Verify(f.file, key, Namespace); err != nil {
		return warrant.Warrant{}, errkind.Errorf(errkind.Of(err), "VCM file of %s: %w", f.UUID, err)
	}
	return w, nil
}

// Key is the unit's key.
func (f *File) Key() (ssh.PublicKey, error) { return warrant.ParseKey(f.UnitKey) }

func invalid(format string, args ...any) error {
	return errkind.Errorf(errkind.Invalid, "VCM file: "+format, args...)
}

const separator = " | "

func (c Control) line() string {
	parts := []string{c.Control, c.Wanted, c.Got, c.Reason, c.Proof}
	for i, p := range parts {
		if parts[i] = clean(p); parts[i] == "" {
			parts[i] = "-"
		}
	}
	return strings.Join(parts, separator)
}

func parseControl(line string) (Control, error) {
	parts := strings.Split(line, separator)
	if len(parts) != 5 {
		return Control{}, invalid("isolation line %.60q has %d parts, not 5", line, len(parts))
	}
	for i, p := range parts {
		if p == "-" {
			parts[i] = ""
		}
	}
	return Control{parts[0], parts[1], parts[2], parts[3], parts[4]}, nil
}

// clean makes text fit one part of a line.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '|':
			return '/'
		case r < 0x20 || r > 0x7e:
			return ' '
		}
		return r
	}, s)
	if s = strings.TrimSpace(s); s == "-" {
		return ""
	}
	return s
}
