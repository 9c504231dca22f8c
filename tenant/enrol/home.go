// Package enrol keeps what a host needs to use a unit or a VCM: one private key
// a service, the pinned root of the maker, the enrolled units and VCMs, and the
// tenant's halves of restrict-startup keys.
//
// # Layout of the services home
//
//	maker-root.pub         the maker's root, pinned
//	global-nonce           for protection G
//	client/SERVICE/        keys of the platform's services (service provider)
//	tenant/SERVICE/        keys of a VCM's services, and tenantreq
//	    key                private key, OpenSSH format, encrypted
//	    key.pub            public key
//	    protection.json    how the passphrase is derived
//	client/SERVICE.next/   keys that are being rolled in
//	units/ESN.json         enrolled units
//	vcms/UUID/vcm.conf     enrolled VCMs
//	shares/REQUEST         tenant shares, encrypted as tenantreq is
//
// The home and its folders have mode 0700, keys 0600. Where a group may read a key
// (group.go) that key's folder has 0750, its files 0640, and those above it 0711;
// what is known of units and VCMs is no secret. A service provider and a tenant on one
// host share the home but no key.
package enrol

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/tesserae-hsm/tesserae/internal/clock"
)

// Env is what the home needs from its surroundings.
type Env struct {
	Getenv func(string) string
	// Ask prompts for a passphrase, twice with confirm.
	Ask func(prompt string, confirm bool) (string, error)
	// Machine returns a host identifier: "product_uuid" or "board_serial".
	Machine func(name string) (string, error)
	// Root means that the home is the superuser's, who shares some keys with a group.
	Root bool
	// Group looks up a group's number.
	Group func(name string) (int, error)
	// Warn tells the user something that needs no decision.
	Warn  func(text string)
	Clock clock.Clock
	Rand  io.Reader
}

// Home is a services home.
type Home struct {
	dir string
	env Env

	mu         sync.Mutex
	passphrase string // protection P, once asked
	warned     bool   // that protection S is not available
}

// Open returns the home in dir. Nothing is created before it is needed.
func Open(dir string, env Env) (*Home, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("services home: %w", err)
	}
	if env.Machine == nil {
		env.Machine = dmi
	}
	if env.Group == nil {
		env.Group = groupID
	}
	if env.Rand == nil {
		env.Rand = rand.Reader
	}
	if env.Clock == nil {
		env.Clock = clock.System()
	}
	if env.Warn == nil {
		env.Warn = func(string) {}
	}
	return &Home{dir: abs, env: env}, nil
}

// DefaultDir is NFAST_SERVICES_HOME, or the usual place for root or a user.
func DefaultDir(getenv func(string) string, root bool) string {
	if dir := getenv("NFAST_SERVICES_HOME"); dir != "" {
		return dir
	}
	if root {
		return "/opt/tesserae/services"
	}
	return filepath.Join(getenv("HOME"), ".tesserae", "services")
}

// Dir is where the home is.
func (h *Home) Dir() string { return h.dir }

func (h *Home) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

// folder makes a folder of the home, and the home itself.
func (h *Home) folder(parts ...string) error {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	if err := os.MkdirAll(h.path(parts...), 0o700); err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	if len(parts) == 0 || parts[0] != "units" && parts[0] != "vcms" {
		return nil
	}
	for i := range parts { // whatever the umask says
		if err := os.Chmod(h.path(parts[:i+1]...), 0o755); err != nil {
			return fmt.Errorf("services home: %w", err)
		}
	}
	return nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func dmi(name string) (string, error) {
	p, err := os.ReadFile(filepath.Join("/sys/class/dmi/id", name))
	return string(p), err
}
