package enrol

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Protection says from what the passphrase of a key is derived.
type Protection struct {
	// Options are letters out of K F S B G P, each at most once.
	Options string `json:"options"`
	Nonce   []byte `json:"nonce,omitempty"` // of K
	// Group may read the key besides its owner; "" for none.
	Group string `json:"group,omitempty"`
}

const (
	allOptions   = "KFSBGP"
	fixedNonce   = "tesserae services key, fixed nonce 1"
	nonceSize    = 32
	maxNonceFile = 1 << 10
)

// defaultOptions is the protection of a service's key where the environment
// says nothing.
func defaultOptions(service string) string {
	switch service {
	case "updater", "monitor", "launcher", "orchestrator", "conductor":
		return "KF"
	default: // sshadmin, setup, prismtoken, tenantreq
		return "KFSG"
	}
}

// newProtection decides how a new key of service will be protected.
func (h *Home) newProtection(service string) (Protection, error) {
	options, variable := h.env.Getenv("NFAST_"+strings.ToUpper(service)+"_KEYPROT"), "NFAST_"+strings.ToUpper(service)+"_KEYPROT"
	if options == "" {
		options, variable = h.env.Getenv("NFAST_KEYPROT"), "NFAST_KEYPROT"
	}
	chosen := options != ""
	if chosen {
		if err := checkOptions(options); err != nil {
			return Protection{}, errkind.Errorf(errkind.Invalid, "%s: %w", variable, err)
		}
	} else {
		options = h.available(defaultOptions(service))
	}
	p := Protection{Options: options}
	if strings.Contains(options, "K") {
		p.Nonce = make([]byte, nonceSize)
		if _, err := io.ReadFull(h.env.Rand, p.Nonce); err != nil {
			return Protection{}, fmt.Errorf("nonce: %w", err)
		}
	}
	return p, nil
}

// available drops from the defaults what this host cannot give to this user; an
// explicit choice is never weakened.
func (h *Home) available(options string) string {
	if !strings.Contains(options, "S") {
		return options
	}
	if _, err := h.machine("product_uuid"); err == nil {
		return options
	}
	h.mu.Lock()
	first := !h.warned
	h.warned = true
	h.mu.Unlock()
	if first {
		h.env.Warn("new keys are not tied to this machine (protection S): its system UUID is not readable")
	}
	return strings.ReplaceAll(options, "S", "")
}

func checkOptions(options string) error {
	for i, c := range options {
		if !strings.ContainsRune(allOptions, c) {
			return errkind.Errorf(errkind.Invalid, "%q is no protection; the letters are K F S B G P", c)
		}
		if strings.ContainsRune(options[:i], c) {
			return errkind.Errorf(errkind.Invalid, "protection %q is given twice", c)
		}
	}
	if options == "" {
		return errkind.Errorf(errkind.Invalid, "a key needs at least one protection")
	}
	return nil
}

// derive returns the passphrase of a key. fresh means that the key is being
// made: nonces may be created and a user passphrase is asked twice.
func (h *Home) derive(p Protection, service string, fresh bool) ([]byte, error) {
	if err := checkOptions(p.Options); err != nil {
		return nil, err
	}
	var secret []byte
	for _, option := range allOptions { // in this order, whatever the text's is
		if !strings.ContainsRune(p.Options, option) {
			continue
		}
		part, err := h.input(option, p, service, fresh)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(part)
		secret = append(append(secret, byte(option)), sum[:]...)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "tesserae services key "+service, 32)
	if err != nil {
		return nil, fmt.Errorf("derive passphrase: %w", err)
	}
	return []byte(hex.EncodeToString(key)), nil
}

func (h *Home) input(option rune, p Protection, service string, fresh bool) ([]byte, error) {
	switch option {
	case 'K':
		if len(p.Nonce) != nonceSize {
			return nil, errkind.Errorf(errkind.Integrity, "the nonce of the %s key is damaged", service)
		}
		return p.Nonce, nil
	case 'F':
		return []byte(fixedNonce), nil
	case 'S':
		return h.machine("product_uuid")
	case 'B':
		return h.machine("board_serial")
	case 'G':
		return h.globalNonce(fresh)
	default: // P
		return h.askPassphrase(service, fresh)
	}
}

func (h *Home) machine(name string) ([]byte, error) {
	text, err := h.env.Machine(name)
	if text = strings.TrimSpace(text); err == nil && text == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Refused, "protection by this machine's %s: %w; only root can read it", name, err)
	}
	return []byte(strings.ToLower(text)), nil
}

func (h *Home) globalNonce(create bool) ([]byte, error) {
	path := h.path("global-nonce")
	nonce, err := atomicfile.Read(path, maxNonceFile)
	if err == nil {
		if err := h.checkAccess(path, ""); err != nil {
			return nil, err
		}
		if len(nonce) != nonceSize {
			return nil, errkind.Errorf(errkind.Integrity, "%s is damaged: keys with protection G cannot be opened without it", path)
		}
		return nonce, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || !create {
		return nil, errkind.Errorf(errkind.NotFound, "protection G: %w", err)
	}
	if err := h.folder(); err != nil {
		return nil, err
	}
	nonce = make([]byte, nonceSize)
	if _, err := io.ReadFull(h.env.Rand, nonce); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	// A link appears whole or not at all, and never replaces another's nonce.
	dir, err := os.MkdirTemp(h.dir, ".nonce.*")
	if err != nil {
		return nil, fmt.Errorf("protection G: %w", err)
	}
	defer os.RemoveAll(dir)
	whole := filepath.Join(dir, "nonce")
	if err := atomicfile.Write(whole, nonce, 0o600); err != nil {
		return nil, fmt.Errorf("protection G: %w", err)
	}
	err = os.Link(whole, path)
	if errors.Is(err, fs.ErrExist) {
		return h.globalNonce(false)
	}
	if err != nil {
		return nil, fmt.Errorf("protection G: %w", err)
	}
	return nonce, atomicfile.SyncDir(h.dir)
}

func (h *Home) askPassphrase(service string, confirm bool) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.passphrase == "" {
		h.passphrase = h.env.Getenv("NFAST_KEYPROT_PASS")
	}
	if h.passphrase == "" {
		if h.env.Ask == nil {
			return nil, errkind.Errorf(errkind.Refused, "the %s key has a user passphrase and there is nobody to ask; set NFAST_KEYPROT_PASS", service)
		}
		text, err := h.env.Ask(fmt.Sprintf("Passphrase of the %s key: ", service), confirm)
		if err != nil {
			return nil, err
		}
		h.passphrase = text
	}
	return []byte(h.passphrase), nil
}
