package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const maxKeyFile = 16 << 10

// Key returns the private key called name, an Ed25519 key in OpenSSH's form in
// a file of mode 0600, and makes it on first use.
func (l *Ledger) Key(name string) (ed25519.PrivateKey, error) {
	path := l.KeyPath(name)
	p, err := atomicfile.Read(path, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path, name)
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "key %s: %w", name, err)
	}
	raw, err := ssh.ParseRawPrivateKey(p)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "key %s in %s: %w", name, path, err)
	}
	key, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return nil, errkind.Errorf(errkind.Integrity, "key %s in %s is not an Ed25519 key", name, path)
	}
	return *key, nil
}

// KeyPath is where the private key called name is.
func (l *Ledger) KeyPath(name string) string { return filepath.Join(l.dir, "keys", name) }

// DropKey removes the private key called name.
func (l *Ledger) DropKey(name string) error {
	if err := os.Remove(l.KeyPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errkind.Errorf(errkind.Unavailable, "key %s: %w", name, err)
	}
	return nil
}

func makeKey(path, comment string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "key %s: %w", comment, err)
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "key %s: %w", comment, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "key %s: %w", comment, err)
	}
	if err := atomicfile.Write(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "key %s: %w", comment, err)
	}
	return key, nil
}
