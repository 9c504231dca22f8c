package device

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// Guard stands between the root key on the disk and whoever has the disk.
type Guard interface {
	// Seal protects a fresh root key. It is called once in a unit's life.
	Seal(root []byte) (box []byte, err error)
	// Open gives the root key back. An error of kind Mode means that the guard
	// was erased.
	Open(box []byte) (root []byte, err error)
	// Erase makes every box useless, for ever. It may be called again.
	Erase() error
}

// FileGuard keeps its secret in a file of mode 0600, which stands for
// battery-backed memory that a tamper event erases. Overwriting a file does not
// reach every copy that a flash drive or a snapshot may hold.
func FileGuard(path string) Guard { return fileGuard{path} }

type fileGuard struct{ path string }

func guardPlace() []byte { return sealed.Place([]byte("root")) }

func (g fileGuard) Seal(root []byte) ([]byte, error) {
	secret := make([]byte, sealed.KeySize)
	_, _ = rand.Read(secret)
	defer clear(secret)
	if err := atomicfile.Write(g.path, secret, 0o600); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	key, err := sealed.New(secret, "tesserae device guard v1")
	if err != nil {
		return nil, err
	}
	return key.Seal(nil, root, guardPlace()), nil
}

func (g fileGuard) Open(box []byte) ([]byte, error) {
	secret, err := atomicfile.Read(g.path, 2*sealed.KeySize)
	if errors.Is(err, os.ErrNotExist) || err == nil && allZero(secret) {
		return nil, errkind.Errorf(errkind.Mode, "the tamper memory is erased")
	}
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	defer clear(secret)
	key, err := sealed.New(secret, "tesserae device guard v1")
	if err != nil {
		return nil, errkind.Errorf(errkind.Mode, "the tamper memory lost its contents")
	}
	root, err := key.Open(nil, box, guardPlace())
	if err != nil {
		return nil, errkind.Errorf(errkind.Mode, "the tamper memory no longer holds this unit's secret")
	}
	return root, nil
}

func (g fileGuard) Erase() error {
	err := overwrite(g.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// overwrite replaces a file's bytes in place by zeros, durably.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, st.Size()), 0); err != nil {
		return err
	}
	return f.Sync()
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
