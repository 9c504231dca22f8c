// Package keystore is the host's side of key management: public keys of Key
// Management Centres, requests to them, their key load files, and which
// vending keys of those are in the security module.
//
// # Order
//
// A key load file is stored whole and durably before the module sees the
// response in it. A module that is LOADING therefore always has its keys at
// hand, also after a crash at any point.
package keystore

import (
	"context"
	"log/slog"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Config is what a keystore needs.
type Config struct {
	Store        *store.Store
	Module       *tsm.Module
	ModuleBucket string // the bucket of the store that is the module's vault
	Preferences  *accounts.Preferences
	Audit        accounts.AuditFunc
	Clock        clock.Clock
	Log          *slog.Logger
}

// Keystore is safe for concurrent use.
type Keystore struct{ cfg Config }

// New returns the keystore kept in cfg.Store.
func New(ctx context.Context, cfg Config) (*Keystore, error) { return &Keystore{cfg}, nil }

// Centre is a Key Management Centre and its KEK slot.
type Centre struct {
	KMC       string
	KPN       int
	Activates time.Time
	Expires   time.Time
	Approved  bool
	InModule  bool // false: only the public key is stored
	State     string
	Request   bool   // a VKLOADREQ is unanswered
	TVP       string // of the newest VKLOADREQ
	Loaded    int    // registers that hold a key of this KMC
	InFile    int    // keys in the newest key load file
}

// Key is a vending key known from a key load file or from the module.
type Key struct {
	SGC, KRN   int
	KMC        string
	Register   int               // 0: not in the module
	Attributes map[string]string // by tag
	Reason     string            // why it cannot vend, or empty
}

// Progress is the outcome of one step of loading.
type Progress struct {
	Loaded    int // in this step
	Remaining int // announced and not loaded yet
	Failure   string
}

// UploadPublicKey stores a KMC's public key from its text file.
func (k *Keystore) UploadPublicKey(ctx context.Context, by accounts.Actor, text string) (Centre, error) {
	return Centre{}, nil
}

// Centres lists the KMCs by name.
func (k *Keystore) Centres(ctx context.Context) ([]Centre, error) { return nil, nil }

// GenerateRequest starts a key agreement and returns the VKLOADREQ to send.
func (k *Keystore) GenerateRequest(ctx context.Context, by accounts.Actor, kmc string) (string, error) {
	return "", nil
}

// FetchRequest returns the newest VKLOADREQ again.
func (k *Keystore) FetchRequest(ctx context.Context, kmc string) (string, error) { return "", nil }

// UploadKLF stores a key load file and hands its response to the module.
func (k *Keystore) UploadKLF(ctx context.Context, by accounts.Actor, text string) (Centre, error) {
	return Centre{}, nil
}

// LoadAll loads up to most keys of the newest file that are not loaded yet.
func (k *Keystore) LoadAll(ctx context.Context, by accounts.Actor, kmc string, most int) (Progress, error) {
	return Progress{}, nil
}

// Load loads one key.
func (k *Keystore) Load(ctx context.Context, by accounts.Actor, sgc, krn int) (Key, error) {
	return Key{}, nil
}

// EndSession ends the key agreement session of a KMC.
func (k *Keystore) EndSession(ctx context.Context, by accounts.Actor, kmc string) (Centre, error) {
	return Centre{}, nil
}

// DeleteSlot removes a KMC's slot with its keys, and the KMC.
func (k *Keystore) DeleteSlot(ctx context.Context, by accounts.Actor, kmc string) (erased int, err error) {
	return 0, nil
}

// List lists vending keys; all includes those that are not in the module.
func (k *Keystore) List(ctx context.Context, all bool) ([]Key, error) { return nil, nil }

// Show returns one vending key.
func (k *Keystore) Show(ctx context.Context, sgc, krn int) (Key, error) { return Key{}, nil }

// Delete erases one vending key from the module.
func (k *Keystore) Delete(ctx context.Context, by accounts.Actor, sgc, krn int) error { return nil }

// Missing explains why a key is not in the module.
func (k *Keystore) Missing(tx *store.Tx, sgc, krn int) (reason string, err error) { return "", nil }
