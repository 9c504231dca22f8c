package enrol

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

// VerifyUnit checks a unit file's warrant against the pinned root and returns
// the unit's key.
func VerifyUnit(u unitfile.Unit, root ssh.PublicKey) (ssh.PublicKey, error) {
	if u.Warrant == "" {
		return nil, errkind.Errorf(errkind.Integrity, "unit %s has no warrant: the maker has not vouched for it yet", u.ESN)
	}
	w, err := warrant.Read([]byte(u.Warrant), root)
	if err != nil {
		return nil, errkind.Errorf(errkind.Of(err), "unit %s: %w", u.ESN, err)
	}
	key, err := u.Key()
	if err != nil {
		return nil, err
	}
	if err := w.Matches(u.ESN, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "unit %s: %w", u.ESN, err)
	}
	return key, nil
}

// SaveUnit enrols a unit, or renews what is known about it.
func (h *Home) SaveUnit(u unitfile.Unit) error {
	if err := licensing.CheckESN(u.ESN); err != nil { // it becomes a file's name
		return err
	}
	if err := h.folder("units"); err != nil {
		return err
	}
	u.FactoryKey = ""
	return unitfile.Write(h.path("units", u.ESN+".json"), u)
}

// Units returns the enrolled units in the order of their ESNs, each verified
// against the pinned root.
func (h *Home) Units() ([]unitfile.Unit, error) {
	entries, err := os.ReadDir(h.path("units"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("services home: %w", err)
	}
	var units []unitfile.Unit
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		u, err := unitfile.Read(h.path("units", e.Name()))
		if err != nil {
			return nil, err
		}
		root, err := h.MakerRoot()
		if err != nil {
			return nil, err
		}
		if _, err := VerifyUnit(u, root); err != nil {
			return nil, err
		}
		units = append(units, u)
	}
	return units, nil
}
