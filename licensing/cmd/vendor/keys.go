package main

import (
	"crypto/ecdsa"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Files of the maker's folder, each with its public half beside it (.pub).
const (
	rootFile        = "root"
	transactionFile = "transaction-key"
)

// writeKey stores a private key in OpenSSH's form and its public half.
func writeKey(dir, name string, private any, public ssh.PublicKey) error {
	block, err := ssh.MarshalPrivateKey(private, "tesserae maker "+name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p := pem.EncodeToMemory(block)
	defer clear(p)
	if err := atomicfile.Write(filepath.Join(dir, name+".pub"), ssh.MarshalAuthorizedKey(public), 0o644); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return atomicfile.Write(filepath.Join(dir, name), p, 0o600)
}

func readKey(dir, name string) (any, error) {
	p, err := atomicfile.Read(filepath.Join(dir, name), armor.MaxSize)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errkind.Errorf(errkind.NotFound, "no maker's keys in %s; make them with 'vendor root --dir %s'", dir, dir)
	}
	if err != nil {
		return nil, err
	}
	defer clear(p)
	key, err := ssh.ParseRawPrivateKey(p)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "%s: %w", filepath.Join(dir, name), err)
	}
	return key, nil
}

func readRoot(dir string) (ssh.Signer, error) {
	key, err := readKey(dir, rootFile)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(key)
}

func readTransactionKey(dir string) (*ecdsa.PrivateKey, error) {
	key, err := readKey(dir, transactionFile)
	if err != nil {
		return nil, err
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errkind.Errorf(errkind.Integrity, "%s is no ECDSA key", filepath.Join(dir, transactionFile))
	}
	return k, nil
}

func readFile(path string) ([]byte, error) {
	p, err := atomicfile.Read(path, armor.MaxSize)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "%w", err)
	}
	return p, nil
}
