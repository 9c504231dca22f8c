package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

func (u *Unit) warrantPath() string   { return filepath.Join(u.cfg.Dir, "warrant") }
func (u *Unit) makerRootPath() string { return filepath.Join(u.cfg.Dir, "maker-root") }

func (u *Unit) makerRootPlace() []byte {
	return sealed.Place([]byte("maker-root"), []byte(u.id.ESN))
}

func (u *Unit) readMakerRoot() error {
	box, err := atomicfile.Read(u.makerRootPath(), maxState)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("maker's root: %w", err)
	}
	text, err := u.boxes.Open(nil, box, u.makerRootPlace())
	if err != nil {
		return errkind.Errorf(errkind.Integrity, "the pinned root of the maker was changed outside the unit")
	}
	u.makerRoot = string(text)
	return nil
}

// InstallWarrant installs the maker's warrant. The first one pins the maker's
// root, as it happens in the factory; later ones must be signed by the same
// root. expected, if not nil, is what the root must be.
func (u *Unit) InstallWarrant(file []byte, expected ssh.PublicKey) (warrant.Warrant, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.ready(); err != nil {
		return warrant.Warrant{}, err
	}
	root, err := u.rootFor(file, expected)
	if err != nil {
		return warrant.Warrant{}, err
	}
	w, err := warrant.Read(file, root)
	if err != nil {
		return warrant.Warrant{}, err
	}
	if err := w.Matches(u.id.ESN, u.id.UnitKey); err != nil {
		return warrant.Warrant{}, err
	}
	if w.Unit != u.id.unit() {
		return warrant.Warrant{}, errkind.Errorf(errkind.Integrity, "the warrant of %s does not say what the unit's identity request said", u.id.ESN)
	}
	// The root first: a pinned root without a warrant only accepts this maker.
	text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(root)))
	if u.makerRoot == "" {
		box := u.boxes.Seal(nil, []byte(text), u.makerRootPlace())
		if err := atomicfile.Write(u.makerRootPath(), box, 0o600); err != nil {
			return warrant.Warrant{}, fmt.Errorf("pin the maker's root: %w", err)
		}
		u.makerRoot = text
	}
	if err := atomicfile.Write(u.warrantPath(), file, 0o600); err != nil {
		return warrant.Warrant{}, fmt.Errorf("install warrant: %w", err)
	}
	return w, nil
}

func (u *Unit) rootFor(file []byte, expected ssh.PublicKey) (ssh.PublicKey, error) {
	if u.makerRoot != "" {
		pinned, err := warrant.ParseKey(u.makerRoot)
		if err != nil {
			return nil, err
		}
		if expected != nil && string(expected.Marshal()) != string(pinned.Marshal()) {
			return nil, errkind.Errorf(errkind.Integrity, "the unit's maker is %s, not %s", ssh.FingerprintSHA256(pinned), ssh.FingerprintSHA256(expected))
		}
		return pinned, nil
	}
	if expected != nil {
		return expected, nil
	}
	return armor.SignerKey(file)
}
