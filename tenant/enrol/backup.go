package enrol

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// backupHead begins the one line before the key in a verbatim backup.
const backupHead = "tesserae-key-backup "

// Backup writes the private key of a service to a file, as it is stored: the
// copy opens only where the original does.
func (h *Home) Backup(realm Realm, service, file string) error {
	dir := h.path(string(realm), service)
	if _, err := h.loadPrivate(dir, service); err != nil { // a backup that does not open is none
		return err
	}
	text, err := atomicfile.Read(h.path(string(realm), service, keyFile), maxKeyFile)
	if err != nil {
		return missing(err, service)
	}
	p, err := readProtection(dir)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("%s%s %s %s\n", backupHead, service, p.Options, base64.StdEncoding.EncodeToString(p.Nonce))
	return writeBackup(file, append([]byte(head), text...))
}

// BackupWithPassphrase writes the private key of a service to a file that
// OpenSSH can read, encrypted with nothing but passphrase.
func (h *Home) BackupWithPassphrase(realm Realm, service, file, passphrase string) error {
	private, err := h.loadPrivate(h.path(string(realm), service), service)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "tesserae "+service, []byte(passphrase))
	if err != nil {
		return fmt.Errorf("encrypt the backup: %w", err)
	}
	return writeBackup(file, pem.EncodeToMemory(block))
}

func writeBackup(file string, data []byte) error {
	if err := atomicfile.Write(file, data, 0o600); err != nil {
		return errkind.Errorf(errkind.Invalid, "write the backup: %w", err)
	}
	return nil
}

// ReadBackup opens a backup of either form. ask is called for the passphrase of
// one that is not verbatim.
func (h *Home) ReadBackup(file string, ask func() (string, error)) (ed25519.PrivateKey, error) {
	text, err := atomicfile.Read(file, maxKeyFile)
	if err != nil {
		return nil, errkind.Errorf(errkind.NotFound, "read the backup: %w", err)
	}
	if !bytes.HasPrefix(text, []byte(backupHead)) {
		passphrase, err := ask()
		if err != nil {
			return nil, err
		}
		return decrypt(text, []byte(passphrase), file, "(the backup's passphrase)")
	}
	head, key, _ := bytes.Cut(text, []byte("\n"))
	parts := strings.Split(strings.TrimPrefix(string(head), backupHead), " ")
	if len(parts) != 3 {
		return nil, errkind.Errorf(errkind.Integrity, "the first line of backup %s is damaged", file)
	}
	p := Protection{Options: parts[1]}
	if p.Nonce, err = base64.StdEncoding.DecodeString(parts[2]); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the first line of backup %s is damaged", file)
	}
	passphrase, err := h.derive(p, parts[0], false)
	if err != nil {
		return nil, err
	}
	return decrypt(key, passphrase, file, p.Options)
}
