package enrol

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// storedShare is a tenant's half of a partition key at rest, encrypted under a
// passphrase derived like that of the tenantreq key.
type storedShare struct {
	Protection Protection `json:"protection"`
	Nonce      []byte     `json:"nonce"`
	Sealed     []byte     `json:"sealed"`
}

// NewShare makes the share that the request with the given id will announce,
// and stores it.
func (h *Home) NewShare(requestID string) (tenantshare.Secret, error) {
	path, err := h.sharePath(requestID)
	if err != nil {
		return nil, err
	}
	secret, err := tenantshare.Generate()
	if err != nil {
		return nil, err
	}
	s := storedShare{Nonce: make([]byte, 12)}
	if s.Protection, err = h.newProtection(TenantRequest); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(h.env.Rand, s.Nonce); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	box, err := h.shareBox(s.Protection, true)
	if err != nil {
		return nil, err
	}
	s.Sealed = box.Seal(nil, s.Nonce, secret, []byte(requestID))
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("share: %w", err)
	}
	if err := h.folder("shares"); err != nil {
		return nil, err
	}
	return secret, atomicfile.Write(path, append(text, '\n'), 0o600)
}

// Share returns the share that the request with the given id announced.
func (h *Home) Share(requestID string) (tenantshare.Secret, error) {
	path, err := h.sharePath(requestID)
	if err != nil {
		return nil, err
	}
	text, err := atomicfile.Read(path, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.Errorf(errkind.NotFound, "this host has no share for request %s", requestID)
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Refused, "share: %w", err)
	}
	if err := h.checkAccess(path, ""); err != nil {
		return nil, err
	}
	var s storedShare
	if err := json.Unmarshal(text, &s); err != nil || len(s.Nonce) != 12 {
		return nil, errkind.Errorf(errkind.Integrity, "%s is damaged", path)
	}
	box, err := h.shareBox(s.Protection, false)
	if err != nil {
		return nil, err
	}
	secret, err := box.Open(nil, s.Nonce, s.Sealed, []byte(requestID))
	if err != nil {
		return nil, errkind.Errorf(errkind.Refused, "%s cannot be opened: its protection %s does not fit this host, user or passphrase, or it is damaged", path, s.Protection.Options)
	}
	return secret, nil
}

// LinkShare notes that a VCM's partition key is now protected by the share of a
// request: setproperties can introduce a new one.
func (h *Home) LinkShare(vcm, requestID string) error {
	if _, err := h.sharePath(requestID); err != nil {
		return err
	}
	path, err := h.sharePath(vcm)
	if err != nil {
		return err
	}
	if err := h.folder("shares"); err != nil {
		return err
	}
	tmp := path + ".new"
	_ = os.Remove(tmp)
	if err := os.Symlink(requestID, tmp); err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	return atomicfile.SyncDir(h.path("shares"))
}

// ShareRequest returns the request whose share protects the VCM, if LinkShare
// has noted one.
func (h *Home) ShareRequest(vcm string) (string, bool) {
	path, err := h.sharePath(vcm)
	if err != nil {
		return "", false
	}
	id, err := os.Readlink(path)
	return id, err == nil
}

func (h *Home) sharePath(id string) (string, error) {
	parsed, err := uuid.Parse(id)
	if err != nil || parsed.String() != id {
		return "", errkind.Errorf(errkind.Invalid, "%q is no UUID", id)
	}
	return h.path("shares", id), nil
}

func (h *Home) shareBox(p Protection, fresh bool) (cipher.AEAD, error) {
	passphrase, err := h.derive(p, TenantRequest, fresh)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(append([]byte("tesserae tenant share\n"), passphrase...))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("share: %w", err)
	}
	return cipher.NewGCM(block)
}
