package enrol

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Realm separates the keys of a service provider from those of a tenant.
type Realm string

// The realms.
const (
	Platform Realm = "client"
	Tenant   Realm = "tenant"
)

// Services whose keys have a fixed meaning.
const (
	SSHAdmin      = "sshadmin"
	TenantRequest = "tenantreq"
)

const (
	keyFile        = "key"
	publicFile     = "key.pub"
	protectionFile = "protection.json"
	nextSuffix     = ".next"
	maxKeyFile     = 16 << 10
)

// Public is the public half of a key of the home.
type Public struct {
	Service    string
	Key        ssh.PublicKey
	Protection string
	Group      string    // who may read it besides its owner
	Installed  time.Time // the file's time stamp
}

// Key returns the key of a service; not found if there is none.
func (h *Home) Key(realm Realm, service string) (ssh.Signer, error) {
	return h.load(h.path(string(realm), service), service)
}

// EnsureKey returns the key of a service, which a group that the environment names
// may read from then on, and makes it if there is none.
func (h *Home) EnsureKey(realm Realm, service string) (key ssh.Signer, created bool, err error) {
	target := h.path(string(realm), service)
	key, err = h.Key(realm, service)
	if err == nil {
		err = h.regroup(target, service)
	}
	if !errkind.Is(err, errkind.NotFound) {
		return key, false, err
	}
	key, private, err := h.generate()
	if err != nil {
		return nil, false, err
	}
	if err := h.store(target, service, private); err != nil {
		if errors.Is(err, fs.ErrExist) { // another command was faster
			key, err = h.Key(realm, service)
		}
		return key, false, err
	}
	return key, true, nil
}

// NextKey returns the key that is to replace a service's key, and makes it if
// there is none. It is kept beside the present one until UseNext.
func (h *Home) NextKey(realm Realm, service string) (ssh.Signer, error) {
	dir := h.path(string(realm), service+nextSuffix)
	key, err := h.load(dir, service)
	if !errkind.Is(err, errkind.NotFound) {
		return key, err
	}
	key, private, err := h.generate()
	if err != nil {
		return nil, err
	}
	return key, h.store(dir, service, private)
}

// HasNext reports whether a replacement of a service's key was begun.
func (h *Home) HasNext(realm Realm, service string) bool {
	ok, err := exists(h.path(string(realm), service+nextSuffix))
	return ok && err == nil
}

// UseNext puts the next key in the place of the present one, which is destroyed.
func (h *Home) UseNext(realm Realm, service string) error {
	present, next := h.path(string(realm), service), h.path(string(realm), service+nextSuffix)
	have, err := exists(present)
	if err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	if have {
		err = unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, present, unix.RENAME_EXCHANGE)
	} else {
		err = os.Rename(next, present)
	}
	if err != nil {
		return fmt.Errorf("services home: put the next %s key in place: %w", service, err)
	}
	if err := atomicfile.SyncDir(h.path(string(realm))); err != nil {
		return err
	}
	return os.RemoveAll(next)
}

// DropNext gives up a replacement that was not used.
func (h *Home) DropNext(realm Realm, service string) error {
	return os.RemoveAll(h.path(string(realm), service+nextSuffix))
}

// SetNext makes a given private key the next one of a service.
func (h *Home) SetNext(realm Realm, service string, private ed25519.PrivateKey) error {
	if err := h.DropNext(realm, service); err != nil {
		return err
	}
	return h.store(h.path(string(realm), service+nextSuffix), service, private)
}

// Public lists the public keys of a realm. No passphrase is needed.
func (h *Home) Public(realm Realm) ([]Public, error) {
	entries, err := os.ReadDir(h.path(string(realm)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("services home: %w", err)
	}
	var out []Public
	for _, e := range entries {
		if strings.Contains(e.Name(), ".") { // next keys and unfinished ones
			continue
		}
		p, err := h.public(h.path(string(realm), e.Name()), e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// PublicKey returns the public half of one key.
func (h *Home) PublicKey(realm Realm, service string) (Public, error) {
	return h.public(h.path(string(realm), service), service)
}

func (h *Home) public(dir, service string) (Public, error) {
	path := filepath.Join(dir, publicFile)
	text, err := atomicfile.Read(path, maxKeyFile)
	if err != nil {
		return Public{}, missing(err, service)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return Public{}, errkind.Errorf(errkind.Integrity, "%s holds no public key", path)
	}
	p, err := readProtection(dir)
	if err != nil {
		return Public{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return Public{}, fmt.Errorf("services home: %w", err)
	}
	return Public{Service: service, Key: key, Protection: p.Options, Group: p.Group, Installed: fi.ModTime()}, nil
}

func (h *Home) generate() (ssh.Signer, ed25519.PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(h.env.Rand)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	return signer, private, nil
}

// store writes a key's folder, which appears whole or not at all.
func (h *Home) store(target, service string, private ed25519.PrivateKey) (err error) {
	protection, err := h.newProtection(service)
	if err != nil {
		return err
	}
	if protection.Group, _, err = h.newGroup(service); err != nil {
		return err
	}
	passphrase, err := h.derive(protection, service, true)
	if err != nil {
		return err
	}
	text, err := marshalKey(h.env.Rand, private, "tesserae "+service, passphrase, protection.rounds())
	if err != nil {
		return fmt.Errorf("encrypt the %s key: %w", service, err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return fmt.Errorf("the %s key: %w", service, err)
	}
	rules, err := json.Marshal(protection)
	if err != nil {
		return fmt.Errorf("the %s key: %w", service, err)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), "."+service+".*")
	if err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp)
		}
	}()
	for name, data := range map[string][]byte{
		keyFile: text, publicFile: ssh.MarshalAuthorizedKey(public), protectionFile: append(rules, '\n'),
	} {
		if err := atomicfile.Write(filepath.Join(tmp, name), data, 0o600); err != nil {
			return fmt.Errorf("services home: %w", err)
		}
	}
	if protection.Group != "" {
		if err := h.share(tmp, protection.Group); err != nil {
			return err
		}
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, target, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("services home: store the %s key: %w", service, err)
	}
	return atomicfile.SyncDir(filepath.Dir(target))
}

func (h *Home) load(dir, service string) (ssh.Signer, error) {
	private, err := h.loadPrivate(dir, service)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the %s key: %w", service, err)
	}
	return signer, nil
}

func (h *Home) loadPrivate(dir, service string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, keyFile)
	text, err := atomicfile.Read(path, maxKeyFile)
	if err != nil {
		return nil, missing(err, service)
	}
	protection, err := readProtection(dir)
	if err != nil {
		return nil, err
	}
	if err := h.checkAccess(path, protection.Group); err != nil {
		return nil, err
	}
	passphrase, err := h.derive(protection, service, false)
	if err != nil {
		return nil, err
	}
	return decrypt(text, passphrase, path, protection.Options)
}

func decrypt(text, passphrase []byte, path, options string) (ed25519.PrivateKey, error) {
	raw, err := ssh.ParseRawPrivateKeyWithPassphrase(text, passphrase)
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, errkind.Errorf(errkind.Refused, "%s cannot be opened: its protection %s does not fit this host, user or passphrase", path, options)
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "%s is damaged: %w", path, err)
	}
	key, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return nil, errkind.Errorf(errkind.Invalid, "%s is no Ed25519 key", path)
	}
	return *key, nil
}

func readProtection(dir string) (Protection, error) {
	path := filepath.Join(dir, protectionFile)
	text, err := atomicfile.Read(path, maxKeyFile)
	if err != nil {
		return Protection{}, errkind.Errorf(errkind.Integrity, "%w", err)
	}
	var p Protection
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Protection{}, errkind.Errorf(errkind.Integrity, "%s is damaged: %w", path, err)
	}
	return p, nil
}

func missing(err error, service string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errkind.Errorf(errkind.NotFound, "this host has no %s key: %w", service, err)
	}
	return errkind.Errorf(errkind.Refused, "the %s key cannot be read: %w", service, err)
}
