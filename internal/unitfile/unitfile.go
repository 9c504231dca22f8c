// Package unitfile is the file by which a unit's platform introduces itself to
// the provider's tools: who it is and where its services listen. orchestratord
// writes it at each start; hsmadmin enroll reads it. It is JSON and not signed:
// the warrant in it is, and the services prove the rest with host certificates.
package unitfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Name is the file's name in the orchestrator's state folder.
const Name = "unit.json"

const maxSize = 256 << 10

// Unit is one unit and its platform services.
type Unit struct {
	ESN      string    `json:"esn"`
	ModuleID string    `json:"moduleId"`
	UnitKey  string    `json:"unitKey"` // authorized_keys form
	Warrant  string    `json:"warrant"` // the maker's signed statement; empty before the factory step
	Services []Service `json:"services"`
	// FactoryKey is the path of a private key, present only in factory state: the
	// one key that sshadmin accepts until hsmadmin enroll replaces it.
	FactoryKey string    `json:"factoryKey,omitempty"`
	Written    time.Time `json:"written"`
}

// Service is one platform service.
type Service struct {
	Name    string `json:"name"`
	Address string `json:"address"` // host:port
}

// Service returns the address of the service called name.
func (u Unit) Service(name string) (string, error) {
	for _, s := range u.Services {
		if s.Name == name {
			return s.Address, nil
		}
	}
	return "", errkind.Errorf(errkind.NotFound, "unit %s has no service %s", u.ESN, name)
}

// Key returns the unit's public key.
func (u Unit) Key() (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(u.UnitKey))
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errkind.Errorf(errkind.Invalid, "unit %s: its unit key is no public key", u.ESN)
	}
	return key, nil
}

func (u Unit) check() error {
	if u.ESN == "" {
		return errkind.Errorf(errkind.Invalid, "esn is missing")
	}
	if _, err := u.Key(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, s := range u.Services {
		if _, err := netip.ParseAddrPort(s.Address); err != nil || s.Name == "" || seen[s.Name] {
			return errkind.Errorf(errkind.Invalid, "service %q at %q: each needs its own name and an address host:port", s.Name, s.Address)
		}
		seen[s.Name] = true
	}
	return nil
}

// Write replaces the file at path, readable by everybody: it holds no secret.
func Write(path string, u Unit) error {
	if err := u.check(); err != nil {
		return fmt.Errorf("unit file: %w", err)
	}
	text, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return fmt.Errorf("unit file: %w", err)
	}
	return atomicfile.Write(path, append(text, '\n'), 0o644)
}

// Read reads the file at path.
func Read(path string) (Unit, error) {
	text, err := atomicfile.Read(path, maxSize)
	if err != nil {
		return Unit{}, errkind.Errorf(errkind.NotFound, "unit file: %w", err)
	}
	u, err := Parse(text)
	if err != nil {
		return Unit{}, errkind.Errorf(errkind.Of(err), "unit file %s: %w", path, err)
	}
	return u, nil
}

// Parse reads the file's text. Unknown fields and anything after the object are
// refused.
func Parse(text []byte) (Unit, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var u Unit
	if err := d.Decode(&u); err != nil {
		return Unit{}, errkind.Errorf(errkind.Invalid, "not readable: %w", err)
	}
	if d.More() {
		return Unit{}, errkind.Errorf(errkind.Invalid, "something follows the JSON object")
	}
	return u, u.check()
}
